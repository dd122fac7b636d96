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
    half_painted as half_painted,
    whole_picture as whole_picture,
)
from .painter import (
    Drawn as Drawn,
    Painter as Painter,
)
from .suggestions import (
    Suggestion as Suggestion,
    load_suggestions as load_suggestions,
)
from .widgets import (
    ExplorerWidget as ExplorerWidget,
    PainterWidget as PainterWidget,
)
