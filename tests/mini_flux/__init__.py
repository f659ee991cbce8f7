"""Small random FLUX checkpoints under the names of the real files.

They load through ComfyUI's stock loaders (with the test plug-in) and, weight for weight, into
diffusers and transformers. `make.py` writes them, `load_diffusers.py` reads them.
"""

from runtime import rescue

rescue.install()  # diffusers and transformers import torchvision
