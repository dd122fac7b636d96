# %% [markdown]
# # SAEPaint
#
# Brush a feature of a sparse autoencoder onto the picture and see what the model draws. `make app` serves this page; notebook
# 20 explains it.

# %%
from sae_lib import Catalogue, Painter
from sae_lib.assets import Assets
from sae_lib.widgets import PainterWidget

# %%
PainterWidget(Catalogue(Painter(Assets("pocket"))))
