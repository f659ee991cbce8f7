"""Nodes for test_record_lists alone: lists, and a node of which one branch runs.

They paint instead of drawing. And nobody has a home folder there, as in a container.
"""

PROBE = '''
import pathlib
import torch

def no_home(_cls):
    raise RuntimeError("Could not determine home directory.")

pathlib.Path.home = classmethod(no_home)

class TestItems:
    """Gives the lines of a text one by one."""
    RETURN_TYPES, FUNCTION, CATEGORY = ("STRING", "INT"), "run", "tests"
    OUTPUT_IS_LIST = (True, True)
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"lines": ("STRING", {})}}
    def run(self, lines):
        words = lines.split()
        return (words, [int(word) for word in words])

class TestNames:
    """Gives the words of a text one by one, a dash as a blank."""
    RETURN_TYPES, FUNCTION, CATEGORY = ("STRING",), "run", "tests"
    OUTPUT_IS_LIST = (True,)
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"words": ("STRING", {})}}
    def run(self, words):
        return (["" if word == "-" else word for word in words.split()],)

class TestPaint:
    """A picture as bright as the noise's seed says."""
    RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE",), "run", "tests"
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"noise": ("NOISE",)}}
    def run(self, noise):
        return (torch.full((1, 16, 16, 3), noise.seed / 255),)

class TestEither:
    """Runs the branch that is asked for, and no other."""
    RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE",), "run", "tests"
    @classmethod
    def INPUT_TYPES(cls):
        lazy = ("IMAGE", {"lazy": True})
        return {"required": {"first": ("BOOLEAN", {}), "one": lazy, "two": lazy}}
    def check_lazy_status(self, first, one=None, two=None):
        return ["one"] if first else ["two"]
    def run(self, first, one=None, two=None):
        return (one if first else two,)

NODE_CLASS_MAPPINGS = {"TestItems": TestItems, "TestNames": TestNames, "TestPaint": TestPaint}
NODE_CLASS_MAPPINGS["TestEither"] = TestEither
'''
