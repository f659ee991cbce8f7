"""Train the small FLUX that draws: `python3 dev.py train`.

`world` makes scenes and words, `paint` paints them, `vae`, `text` and `flux` are the networks under
the published names, `stages` trains them, `judge` tells what a picture shows, `pack` keeps the
trained weights small.
"""
