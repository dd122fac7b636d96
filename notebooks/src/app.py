# %% [markdown]
# # SAEPaint
#
# 1. Click a button beside **Try this**, and compare **Before** with **After**.
# 2. Drag over **Before** to paint elsewhere, click another feature in the list, or move **Strength**. **Undo** goes back.

# %%
from sae_lib import Assets, Catalogue, Painter
from sae_lib.paint import PainterWidget

# %%
PainterWidget(Catalogue(Painter(Assets("pocket"))))
