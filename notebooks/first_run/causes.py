"""What an error most likely comes from, and what to do about it."""

import re

CAUSES = (
    (
        r"out of memory|CUBLAS_STATUS_ALLOC_FAILED|GB (and|are) .*(free|of memory)|has [\d.]+ GB free",
        "too little memory: give a smaller --batch, or use a larger GPU",
    ),
    (
        r"\b40[13]\b|gated|licen[cs]e|restricted|Invalid credentials",
        "the licence was not accepted, or no token is there: accept it on the model's page, then run `hf auth login`",
    ),
    (
        r"torchmetrics|torchvision|\.\[sdxl\]",
        "LPIPS's packages are not installed: pip install '.[sdxl]'",
    ),
    (
        r"variant|no such files|\.fp16\.",
        "the folder lacks the fp16 files: copy the whole repository, or one that save_pretrained wrote",
    ),
    (
        r"NaN|not finite|infinit|black picture",
        "numbers left the range of 16 bits, as SDXL's autoencoder does in fp16: use a folder with sdxl-vae-fp16-fix",
    ),
    (
        r"no RIEBench file",
        "RIEBench's JSON has no licence and is not contained here: give its path with --riebench",
    ),
    (
        r"cannot be downloaded|cannot be reached|connect to the internet|connected machine|Connection|resolve|offline",
        "no network: connect, or give folders with --source, --base-source, --sae-folder, --clip-source, --prompt-file",
    ),
    (r"disk is full|No space left|are free", "the disk is full: free some, or name another in SAE_LIB_CACHE"),
    (
        r"no SAE of block|no folder of SAEs|SAEs of block|mean\.pt",
        "the SAE folder is not the authors': copy their repository as it is, with mean.pt and std.pt",
    ),
)
"""Patterns of an error's text, and the cause that it points to; the first that fits counts."""

UNKNOWN = "no known cause: please send the report with this sentence"


def likely_cause(error: BaseException | str) -> str:
    """The likely cause of an error, with the way out."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return next((cause for pattern, cause in CAUSES if re.search(pattern, text, re.IGNORECASE)), UNKNOWN)


def in_one_sentence(error: BaseException) -> str:
    """An error's first line with its type, at most 400 characters."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'without a word'}"[:400]
