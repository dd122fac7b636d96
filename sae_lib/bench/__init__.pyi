from .dataset import (
    read_updates as read_updates,
    write_dataset as write_dataset,
)
from .export import (
    export_updates as export_updates,
)
