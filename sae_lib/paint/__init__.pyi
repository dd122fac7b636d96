from .catalogue import (
    BETAS as BETAS,
    CLEAR as CLEAR,
    NEVER_FIRED as NEVER_FIRED,
    NO_CLEAR_MEANING as NO_CLEAR_MEANING,
    TOP as TOP,
    Catalogue as Catalogue,
    Hits as Hits,
    Row as Row,
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
