from .config import (
    SAEConfig as SAEConfig,
)
from .loop import (
    train_saes as train_saes,
)
from .losses import (
    Weights as Weights,
    add_gradients_ as add_gradients_,
    training_loss as training_loss,
)
from .recipe import (
    TrainingRun as TrainingRun,
)
from .trained import (
    Trained as Trained,
    one_step_saes as one_step_saes,
    train_in_setting as train_in_setting,
    train_side_by_side as train_side_by_side,
    trains_saes as trains_saes,
)
from .trainer import (
    SAETraining as SAETraining,
    geometric_median as geometric_median,
    initialise_sae as initialise_sae,
    peak_memory_gb as peak_memory_gb,
)
