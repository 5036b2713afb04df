"""The same model on TensorFlow: python examples/big_language_model_tensorflow.py MODEL ["The quick brown fox"]

MODEL is a directory that `lucidlm export … --to keras` made. It needs pip install 'lucidlm[tensorflow]'.
"""

import json
import sys
from pathlib import Path

from lucidlm.interop.keras import BigLanguageModel

directory = Path(sys.argv[1])
prompt = sys.argv[2] if len(sys.argv) > 2 else "The quick brown fox"

size = json.loads((directory / "config.json").read_text(encoding="utf-8"))["model"]
model = BigLanguageModel(
    vocab_size=size["vocab_size"],
    embedding_dim=size["embedding_dim"],
    num_heads=size["num_heads"],
    ff_dim=size["ff_dim"],
    num_layers=size["num_layers"],
)
model.load_weights(directory / "big_language_model_weights.weights.h5")
print(model.generate(prompt, length=50))
