"""A task of your own in one file: titles for articles, from rows like {"article": "…", "title": "…"}.

    python examples/new_task.py MODEL ARTICLES.jsonl OUT

MODEL is what `lucidlm pretrain` made. For `lucidlm finetune title …` put this into a package with an entry point:

    [project.entry-points."lucidlm.task"]
    title = "my_package.new_task:TITLE"
"""

import sys

from lucidlm import load_model
from lucidlm.data.examples.records import Pair
from lucidlm.metrics.text_metrics import summarization_metrics
from lucidlm.tasks.base.task import tasks
from lucidlm.tasks.base.text_generation import SequenceToSequence

TITLE = tasks.register("title")(
    SequenceToSequence(
        name="title",
        description="a title for an article",
        source_field="article",
        target_field="title",
        source_share=0.9,
        metrics=summarization_metrics,
    )
)

if __name__ == "__main__":
    from lucidlm.train.finetune.run import FinetuneConfig, finetune

    model, articles, out = sys.argv[1:]
    finetune(FinetuneConfig(task="title", model=model, data=articles), out)
    [answer] = TITLE.predictor(load_model(out)).predict([Pair("Rain fell on the city all day.", "", (), "")])
    print(answer.text)
