"""Nodes for test_lora_node alone: what they tell cannot be seen from outside."""

PROBE = '''
class TestRoute:
    """Says, as the loader does, on which route a MODEL runs."""
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "run", "tests"
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("MODEL",), "route": ("STRING", {})}}
    def run(self, model, route):
        model = model.clone()
        model.set_attachments("flux_hotswap_route", route)
        return (model,)

class TestSame:
    """Tells whether two MODELs are one object, and what the second has more."""
    RETURN_TYPES, FUNCTION, CATEGORY = ("STRING",), "run", "tests"
    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"before": ("MODEL",), "after": ("MODEL",)}}
    def run(self, before, after):
        more = sorted({p[0] for patches in after.patches.values() for p in patches})
        return (f"{before is after} {len(before.patches)} {len(after.patches)} {more}",)

NODE_CLASS_MAPPINGS = {"TestRoute": TestRoute, "TestSame": TestSame}
'''
