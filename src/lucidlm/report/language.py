"""The texts of a report in English and Chinese, and the formatting of durations.

English is the key: a sentence reads as it will in the code that uses it. A test sees to it that each has its Chinese.
"""

# ruff: noqa: E501 (a sentence and its Chinese stay on one line)

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

CHINESE = {
    # the page
    "Training report": "训练报告",
    "Comparison of {count} runs": "{count} 次训练的比较",
    "What was trained, on what, how well it does, and what it took. Every figure comes from files in the run's directory.": "训练了什么、用了什么数据、效果如何、代价多大。所有数字都来自运行目录中的文件。",
    "Click on the head of a column to sort by it.": "点击表头可按该列排序。",
    "Written by lucidlm {version} on {date}.": "由 lucidlm {version} 生成于 {date}。",
    # key figures
    "accuracy": "准确率",
    "{low} to {high} with 95 % confidence": "95 % 置信区间 {low} 至 {high}",
    "against the best baseline": "相对最好的基线",
    "percentage points against {name}: {verdict}; {low} to {high} with 95 % confidence": "与 {name} 相差的百分点：{verdict}；95 % 置信区间 {low} 至 {high}",
    "against {name}: {verdict}; {low} to {high} with 95 % confidence": "与 {name} 相比：{verdict}；95 % 置信区间 {low} 至 {high}",
    "better": "更好",
    "worse": "更差",
    "no difference shown": "未显示差异",
    "bits per byte": "每字节比特数",
    "of held-out text; lower is better": "在留出文本上；越低越好",
    "perplexity": "困惑度",
    "per token of held-out text": "在留出文本上，按词元计",
    "parameters": "参数量",
    "{layers} layers, {width} wide, vocabulary of {vocabulary}": "{layers} 层，宽 {width}，词表 {vocabulary}",
    "of training": "训练时间",
    "{tokens} tokens in {steps} steps": "{steps} 步，{tokens} 个词元",
    "electricity (estimate)": "耗电（估计）",
    "not measured: assumes {watts} W at full load": "未实测：假设满载功率 {watts} W",
    # names that come from the files of a run
    "majority class": "多数类",
    "commonest set of labels": "最常见的标签集合",
    "word overlap + logistic regression": "词的重合 + 逻辑回归",
    "word overlap + linear regression": "词的重合 + 线性回归",
    "mean": "平均值",
    "Transformer alone": "只用 Transformer",
    "n-grams alone": "只用 n 元计数",
    "naive Bayes (word 1–2-grams) + logistic regression": "朴素贝叶斯（词 1–2 元）+ 逻辑回归",
    "naive Bayes (character 1–4-grams) + logistic regression": "朴素贝叶斯（字符 1–4 元）+ 逻辑回归",
    "TF-IDF (word 1–2-grams) + logistic regression": "TF-IDF（词 1–2 元）+ 逻辑回归",
    "TF-IDF (character 1–3-grams) + logistic regression": "TF-IDF（字符 1–3 元）+ 逻辑回归",
    "sentiment": "情感分类",
    "text-classification": "文本分类",
    "multi-label": "多标签分类",
    "entailment": "蕴含判断",
    "paraphrase": "复述判断",
    "similarity": "句子相似度",
    "question-answering": "抽取式问答",
    "token-tagging": "序列标注",
    "generative-qa": "生成式问答",
    "translation": "翻译",
    "summarization": "摘要",
    "dialogue": "对话",
    "generation": "文本生成",
    "semantic-search": "语义检索",
    "recommendation": "推荐",
    "macro_f1": "宏平均 F1",
    "micro_f1": "微平均 F1",
    "pearson": "皮尔逊相关系数",
    "spearman": "斯皮尔曼相关系数",
    "mcc": "马修斯相关系数",
    "calibration_error": "校准误差",
    "exact_match": "精确匹配",
    "entity_f1": "实体 F1",
    "entity_precision": "实体精确率",
    "entity_recall": "实体召回率",
    "token_accuracy": "词元准确率",
    "no entity": "不标实体",
    "most frequent tag of the word": "该词最常见的标签",
    "words": "词",
    "tags": "标签",
    "question": "问题",
    "context": "上下文",
    "answer": "答案",
    "answers": "答案",
    "prediction": "预测",
    "probabilities": "概率",
    "score": "得分",
    "reference": "参考",
    "written": "生成",
    "pretraining (causal)": "预训练（因果）",
    "pretraining (masked)": "预训练（掩码）",
    # headings
    "How good it is": "效果如何",
    "{task} on {examples} examples from {data}": "{task}：来自 {data} 的 {examples} 个样例",
    "What it writes": "它写了什么",
    "Each text begins with the prompt, in bold; the rest is the model's.": "每段文字以加粗的提示开头，其余由模型生成。",
    "How it learned": "如何学会的",
    "Faint: each step. Bold: running mean. Dots: measured on held-out text.": "浅色：每一步；深色：滑动平均；圆点：在留出文本上测得。",
    "Pretraining": "预训练",
    "Fine-tuning": "微调",
    "What it learned from": "从什么数据学习",
    "Where it comes from": "来历",
    "All runs": "全部运行",
    # charts
    "{metric} beside the baselines": "{metric}与基线",
    "Whiskers are 95 % bootstrap intervals.": "须线为 95 % 自助法置信区间。",
    "Confusion matrix": "混淆矩阵",
    "Rows: true label. Columns: predicted label. Percentages are of the row.": "行：真实标签；列：预测标签；百分比按行计算。",
    "Training loss": "训练损失",
    "Validation loss": "验证损失",
    "Validation": "验证",
    "Bits per byte of held-out text": "留出文本的每字节比特数",
    "Learning rate": "学习率",
    "Gradient norm": "梯度范数",
    "Throughput": "吞吐量",
    "training": "训练",
    "validation": "验证",
    "nats": "奈特",
    "bits": "比特",
    "share": "比例",
    "step": "步",
    "tokens per second": "词元/秒",
    "norm": "范数",
    "Loss": "损失",
    "from {first} to {last}": "从 {first} 到 {last}",
    # label efficiency
    "Few labels: {task}": "少量标注：{task}",
    "{metric} on {examples} held-out examples, tuned on few labels: with pretraining, from scratch, and by the baseline.": "在 {examples} 条留出样本上的 {metric}；仅用少量标注微调：有预训练、从零开始、以及基线。",
    "{metric} by number of labelled examples": "{metric} 与标注样本数",
    "Lines: mean of the seeds. Bars: lowest and highest of them. One seed draws the same examples for all methods.": "线：各随机种子的平均；竖条：其中最低与最高。同一种子下各方法使用相同样本。",
    "labelled examples": "标注样本数",
    "What labels are worth": "标注的价值",
    "The same held-out examples judge what was learned from few labels and from more.": "学自少量和更多标注的，都用同一批留出样本评判。",
    " Made on {machine}.": "所用机器：{machine}。",
    "pretrained": "有预训练",
    "other model": "另一个模型",
    "from scratch": "从零开始",
    "Mean of {seeds} seeds, and lowest to highest of them": "{seeds} 个随机种子的平均，及最低至最高",
    "examples of each label": "每类样本数",
    # tables
    "All metrics": "全部指标",
    "model": "模型",
    "the model against it": "本模型与之相比",
    "seconds": "秒",
    "In brackets: 95 % bootstrap intervals. The verdict is that of a paired test on the first metric. Seconds: to answer all examples, and for the baselines to fit as well.": "括号内为 95 % 自助法置信区间。结论出自对第一项指标的配对检验。秒：回答全部样例的时间，基线另含拟合时间。",
    "run": "运行",
    "kind": "类型",
    "steps": "步数",
    "tokens": "词元数",
    "training time": "训练时间",
    "validation loss": "验证损失",
    "validation result": "验证结果",
    "test result": "测试结果",
    "language model": "语言模型",
    "fine-tuned model": "微调后的模型",
    "Most confident mistakes": "最自信的错误",
    "text": "文本",
    "label": "标签",
    "predicted": "预测",
    "confidence": "置信度",
    "where": "位置",
    "Answers to single examples": "对每个样例的回答",
    "The first {count} of {all}; predictions.jsonl has all of them.": "共 {all} 条，此处为前 {count} 条；全部见 predictions.jsonl。",
    "Show rows that contain": "只显示包含以下内容的行",
    "What to know of these figures": "读这些数字须知",
    "seen in fine-tuning": "微调数据中出现过",
    "seen in pretraining": "预训练数据中出现过",
    "not checked: {reason}": "未检查：{reason}",
    "{count} of {examples} examples ({share}) share half of their n-grams or more with the training texts; {copies} are copies": "{examples} 个样例中有 {count} 个（{share}）的 n 元组有一半以上出现在训练文本中；{copies} 个完全相同",
    "unknown to the tokenizer": "分词器不认识",
    "{count} of {all} characters ({share}), first: {first}": "{all} 个字符中的 {count} 个（{share}），第一个：{first}",
    "inputs read in windows": "分窗口读取的输入",
    "inputs cut": "被截断的输入",
    "entities of types that the model does not know": "模型不认识的类型的实体",
    # the page of results
    "Results": "结果",
    "Made by `lucidlm results` from the files that evaluations left. In brackets: 95 % bootstrap intervals.": "由 `lucidlm results` 根据评测留下的文件生成。方括号内为 95 % 自助法置信区间。",
    "metric": "指标",
    "result": "结果",
    "best baseline": "最好的基线",
    "trained from scratch": "从零训练",
    "{count} more figures are in eval.json.": "另有 {count} 项数字在 eval.json 里。",
    "Judged on: {machines}.": "评测所用机器：{machines}。",
    "{count} cores": "{count} 核",
    "Verdicts are those of paired tests (approximate randomisation) on the first metric, at p < 0.05.": "结论出自对第一项指标的配对检验（近似随机化），p < 0.05。",
    "data: {data}, {examples} examples": "数据：{data}，{examples} 个样例",
    "model: {parameters} parameters": "模型：{parameters} 个参数",
    "trained in {minutes} min": "训练 {minutes} 分钟",
    "judged in {seconds} s": "评测 {seconds} 秒",
    "Again: {command}": "重做：{command}",
    # facts
    "Sources": "来源",
    "source": "来源",
    "licence": "许可证",
    "not stated": "未注明",
    "documents": "文档数",
    "size": "大小",
    "What each step kept": "每一步保留了多少",
    "documents in": "输入文档",
    "documents out": "输出文档",
    "left out": "去除",
    "other counts": "其他计数",
    "Splits": "划分",
    "split": "划分",
    "train": "训练",
    "test": "测试",
    "Tokenizer": "分词器",
    "tokenizer": "分词器",
    "vocabulary": "词表",
    "bytes per token": "每词元字节数",
    "split by": "划分依据",
    "name": "名称",
    "Machine": "机器",
    "Configuration": "配置",
    "Provenance": "来源记录",
    "directory": "目录",
    "task": "任务",
    "labels": "标签",
    "seed": "随机种子",
    "version": "版本",
    "data": "数据",
    "evaluation data": "评测数据",
    "sha256 of the evaluation data": "评测数据的 sha256",
}


@dataclass(frozen=True)
class Language:
    """English ("en") or Chinese ("zh")."""

    code: Literal["en", "zh"] = "en"

    def text(self, english: str, **values: object) -> str:
        """Return `english`, or its Chinese translation, with `{names}` replaced by `values`."""
        return (CHINESE[english] if self.code == "zh" else english).format(**values)

    def name(self, english: str) -> str:
        """Return the Chinese for a name from a run's files, or the name itself if there is no translation."""
        return CHINESE.get(english, english) if self.code == "zh" else english

    def processor(self, machine: Mapping[str, Any]) -> str:
        """Name the processor of a machine, as `describe_machine` has it, and its cores."""
        return f"{machine.get('cpu', '?')}, {self.text('{count} cores', count=machine.get('cores', '?'))}"

    def duration(self, seconds: float) -> str:
        """Format a duration: 42 s, 3 min 20 s, 2 h 5 min."""
        whole = round(seconds)
        hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
        units = ("小时", "分", "秒") if self.code == "zh" else ("h", "min", "s")
        if hours:
            return f"{hours} {units[0]} {minutes} {units[1]}"
        return f"{minutes} {units[1]} {rest} {units[2]}" if minutes else f"{rest} {units[2]}"
