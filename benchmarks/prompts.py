"""Beginnings of texts of many kinds, for benchmarks that compare what is written after them."""

PROMPTS = (
    "The quick brown fox",
    "The capital of France is",
    "Water boils at",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):",
    "The three primary colours are",
    "To make a good cup of tea, first",
    "In 1969, the first people",
    "Dear Sir or Madam,",
    "The difference between a virus and a bacterium is",
    "What is the meaning of life?",
    "My favourite book is",
    "1, 2, 3, 4,",
    "The stock market fell today because",
    "<h1>Welcome</h1>",
    "Photosynthesis is the process by which",
    "She opened the door and saw",
    "Q: How many legs does a spider have?\nA:",
    "The President of the United States",
    "春眠不觉晓，",
)
