"""Open a trained model and let it write: python examples/big_language_model.py MODEL ["The quick brown fox"]

MODEL is a directory that `lucidlm pretrain` or `lucidlm demo` made. It is opened twice: as it is, and, as one would with
weights of one's own, by constructing a model of the same size and loading the weights into it.
"""

import sys

from lucidlm import BigLanguageModel

directory = sys.argv[1]
prompt = sys.argv[2] if len(sys.argv) > 2 else "The quick brown fox"

trained = BigLanguageModel.from_pretrained(directory)
for piece in trained.stream(prompt, length=50, temperature=0.8):
    print(piece, end="", flush=True)
print()

size = trained.config
model = BigLanguageModel(size.vocab_size, size.embedding_dim, size.num_heads, size.ff_dim, size.num_layers)
model.load_weights(directory)
print(model.generate(prompt, length=50, temperature=0.8))
