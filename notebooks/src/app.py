# %% [markdown]
# # SAEPaint
#
# Brush a feature of a sparse autoencoder onto the picture and see the model draw it. `make app` serves this page; notebook 20
# explains it.

# %%
from sae_lib.catalogue import load_catalogue
from sae_lib.painting import load_painter
from sae_lib.widgets import PainterWidget

# %%
PainterWidget(load_catalogue(load_painter("pocket")))
