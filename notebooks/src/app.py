# %% [markdown]
# # SAEPaint
#
# Brush a feature of a sparse autoencoder onto the picture and see what the model draws. `make app` serves this page;
# notebook 20 explains it.

# %%
from sae_lib import Assets, Catalogue, Painter
from sae_lib.paint import PainterWidget

# %%
PainterWidget(Catalogue(Painter(Assets("pocket"))))
