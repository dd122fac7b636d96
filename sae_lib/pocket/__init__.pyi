from .by_eye import (
    NAMED as NAMED,
    SEEN as SEEN,
    UNNAMED as UNNAMED,
    compare_with_eye as compare_with_eye,
    count_answers as count_answers,
    load_by_eye as load_by_eye,
)
from .captions import (
    Caption as Caption,
    attribute_words as attribute_words,
    minimal_pairs as minimal_pairs,
    sample_captions as sample_captions,
    unlearnt_words as unlearnt_words,
    write_caption as write_caption,
)
from .chosen import (
    MOST as MOST,
    WANTED_LEAST as WANTED_LEAST,
    WANTED_MEAN as WANTED_MEAN,
    load_choice as load_choice,
)
from .judge import (
    Judge as Judge,
    Judgement as Judgement,
    judge_images as judge_images,
)
from .models import (
    build_pipeline as build_pipeline,
)
from .statements import (
    FAMILIES as FAMILIES,
    caption_agreement as caption_agreement,
    check_statements as check_statements,
    count_statements as count_statements,
    fulfilled as fulfilled,
    least_sure as least_sure,
)
from .world import (
    ATTRIBUTES as ATTRIBUTES,
    Object as Object,
    Scene as Scene,
    attribute_maps as attribute_maps,
    has_attribute as has_attribute,
    object_masks as object_masks,
    render as render,
    sample_scenes as sample_scenes,
)
