from .catalogue import (
    BETAS as BETAS,
    TOP as TOP,
    Catalogue as Catalogue,
    finest_grid as finest_grid,
)
from .edits import (
    Edit as Edit,
    Layer as Layer,
)
from .painter import (
    Drawn as Drawn,
    Painter as Painter,
)
from .widgets import (
    ExplorerWidget as ExplorerWidget,
    PainterWidget as PainterWidget,
)
