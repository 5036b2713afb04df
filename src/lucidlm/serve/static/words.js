// What the page says, in English and Chinese.

const WORDS = {
  skip: ["Skip to content", "跳到正文"],
  other: ["中文", "English"],
  model: ["Model", "模型"],
  chat: ["Chat", "对话"],
  completion: ["Completion", "续写"],
  search: ["Search", "搜索"],
  runs: ["Runs", "训练记录"],
  key: ["API key", "API 密钥"],
  keyWhy: ["This server asks for a key. It is kept until you close this tab.", "这个服务器需要密钥。密钥保存到关闭此标签页为止。"],
  keySend: ["Use this key", "使用这个密钥"],
  send: ["Send", "发送"],
  stop: ["Stop", "停止"],
  again: ["New conversation", "新对话"],
  write: ["Write", "写"],
  you: ["You", "你"],
  assistant: ["Assistant", "助手"],
  message: ["Message", "消息"],
  messageHint: ["Enter sends, Shift+Enter begins a new line", "回车发送，Shift+回车换行"],
  noTalk: ["Ask something to begin.", "提个问题开始。"],
  prompt: ["Prompt", "提示"],
  promptHint: ["A text to go on from", "从这段文本续写"],
  probabilities: ["Show how likely each token was", "显示每个词元的概率"],
  probabilityHint: ["Point at a token, or move with Tab and the arrow keys, to see what else could have stood there.", "指向一个词元，或用 Tab 和方向键移动，查看此处还可能是什么。"],
  settings: ["How to write", "怎样写"],
  settingsHint: ["What is left empty is as the model's files say.", "留空的各项以模型文件为准。"],
  system: ["System prompt", "系统提示"],
  systemHint: ["What the assistant is told before the conversation", "对话之前告诉助手的话"],
  max_tokens: ["Most tokens", "最多词元"],
  max_tokensHint: ["A token is a word or a part of one", "词元是一个词或词的一部分"],
  temperature: ["Temperature", "温度"],
  temperatureHint: ["0: always the likeliest; 1: as the model says", "0：总取最可能的；1：按模型的分布"],
  top_p: ["Top-p", "Top-p"],
  top_pHint: ["Only the likeliest that together have this share", "只在合计达到这一份额的最可能词元里抽"],
  top_k: ["Top-k", "Top-k"],
  top_kHint: ["Only the k likeliest; 0: all", "只在最可能的 k 个里抽；0：全部"],
  min_p: ["Min-p", "Min-p"],
  min_pHint: ["None below this share of the likeliest", "去掉低于最可能者这一份额的"],
  repetition_penalty: ["Repetition penalty", "重复惩罚"],
  repetition_penaltyHint: ["Above 1: avoid what was said", "大于 1：回避说过的"],
  presence_penalty: ["Presence penalty", "出现惩罚"],
  presence_penaltyHint: ["Above 0: avoid what was written", "大于 0：回避写过的"],
  frequency_penalty: ["Frequency penalty", "频率惩罚"],
  frequency_penaltyHint: ["Above 0: the more, the oftener", "大于 0：写得越多越回避"],
  seed: ["Seed", "种子"],
  seedHint: ["The same number gives the same text", "同一个数，同样的文本"],
  n: ["Texts", "篇数"],
  nHint: ["How many to write", "写几篇"],
  stopAt: ["Stop at", "遇到即停"],
  stopAtHint: ["Strings, a line each", "字符串，每行一个"],
  form: ["The text has to be", "文本必须"],
  formHint: ["Nothing else is written then", "这样就不会写出别的"],
  form_free: ["anything", "不限"],
  form_schema: ["JSON by a schema", "符合 JSON Schema"],
  form_regex: ["a match of a pattern", "匹配正则表达式"],
  form_choices: ["one of these", "是其中之一"],
  form_grammar: ["by a grammar", "符合语法"],
  form_required: ["with these phrases", "含有这些短语"],
  form_forbidden: ["without these phrases", "不含这些短语"],
  formText: ["Form", "形式"],
  formTextHint: ["The schema, the pattern, or a text a line", "模式、正则表达式，或每行一项"],
  written: ["{0} tokens in {1} s, {2} a second", "{1} 秒写了 {0} 个词元，每秒 {2} 个"],
  stopped: ["Stopped.", "已停止。"],
  failed: ["That did not work: {0}", "没有成功：{0}"],
  answered: ["Answered: {0}", "已回答：{0}"],
  run: ["Run", "运行"],
  text: ["Text", "文本"],
  otherText: ["Other text", "另一段文本"],
  question: ["Question", "问题"],
  context: ["Passage", "段落"],
  result: ["Result", "结果"],
  score: ["Score", "分数"],
  noAnswer: ["The passage holds no answer.", "这段文字里没有答案。"],
  noEntities: ["No entity.", "没有实体。"],
  noLabels: ["No label holds.", "没有一个标签成立。"],
  why: ["Why?", "为什么？"],
  whyTarget: ["Why {0}", "为什么是 {0}"],
  whyRather: ["Why {0} rather than {1}", "为什么是 {0} 而不是 {1}"],
  ratherThan: ["rather than", "而不是"],
  anythingElse: ["anything else", "其他任何一个"],
  otherAnswer: ["other words of the passage", "段落里的其他词语"],
  noAnswerAtAll: ["no answer", "没有答案"],
  looking: ["Looking for what it rests on…", "正在查找依据……"],
  whyMost: ["What speaks for it most: {0}.", "最支持它的：{0}。"],
  whyNothing: ["No word speaks for it.", "没有词支持它。"],
  listed: [", ", "，"],
  better: [
    "Better than random: without the words it rests on most, its probability falls by {0} points, without random ones by {1} (p = {2}).",
    "优于随机：去掉它最依据的词，概率下降 {0} 个百分点；去掉随机的词，下降 {1} 个（p = {2}）。",
  ],
  notBetter: [
    "Not shown to be better than random: without the words it rests on most, its probability falls by {0} points, without random ones by {1} (p = {2}).",
    "未显示优于随机：去掉它最依据的词，概率下降 {0} 个百分点；去掉随机的词，下降 {1} 个（p = {2}）。",
  ],
  notTested: ["Not tested: too few words could be left out.", "未检验：可以去掉的词太少。"],
  whyHint: [
    "Green and underlined speaks for it, red and dashed against it; the stronger, the more. Point at a word, or move with Tab and the arrow keys, for its number, {0}, by {1}. It describes the model, not the world.",
    "绿色实线为支持，红色虚线为反对，颜色越深越强。指向一个词，或用 Tab 和方向键移动，查看数值（{0}；方法：{1}）。它描述的是模型，而非世界。",
  ],
  "unit in nats": ["in nats", "单位：奈特"],
  "unit in the target's logit": ["in the target's logit", "单位：目标的 logit"],
  "unit as shares of attention": ["as shares of attention", "注意力的份额"],
  query: ["What to look for", "找什么"],
  documents: ["Texts to search, a line each", "在哪些文本里找，每行一段"],
  find: ["Search", "搜索"],
  noRuns: ["No run here yet.", "这里还没有训练记录。"],
  chooseRuns: ["Choose runs to compare", "选择要比较的训练"],
  status_running: ["running", "进行中"],
  status_done: ["done", "已完成"],
  status_stopped: ["stopped", "已中断"],
  step: ["step {0}", "第 {0} 步"],
  along: ["Along", "横轴"],
  along_step: ["Steps", "步"],
  along_tokens: ["Tokens", "词元"],
  along_seconds: ["Seconds", "秒"],
  train_loss: ["Training loss", "训练损失"],
  validation_loss: ["Validation loss", "验证损失"],
  accuracy: ["Accuracy", "准确率"],
  macro_f1: ["Macro-F1", "宏平均 F1"],
  mcc: ["Matthews correlation", "马修斯相关系数"],
  calibration_error: ["Calibration error", "校准误差"],
  perplexity: ["Perplexity", "困惑度"],
  bits_per_byte: ["Bits per byte", "每字节比特"],
  samples: ["Samples", "样本"],
  report: ["Report", "报告"],
  nothing: ["No model here that a page could use; the endpoints work.", "这里没有网页能用的模型；端点可以使用。"],
};

let language = localStorage.getItem("lucidlm-language") ?? (navigator.language.startsWith("zh") ? "zh" : "en");

export function currentLanguage() {
  return language;
}

export function setLanguage(chosen) {
  language = chosen;
  localStorage.setItem("lucidlm-language", chosen);
}

// The word for a key; {0}, {1}, … in it are replaced. What has no word is shown as it is: names of tasks, say.
export function word(key, ...values) {
  const said = WORDS[key]?.[language === "zh" ? 1 : 0] ?? key.replaceAll("-", " ");
  return said.replace(/\{(\d)\}/g, (_, place) => values[place]);
}

const TASKS = {
  sentiment: "情感",
  "text-classification": "文本分类",
  "multi-label": "多标签",
  entailment: "蕴含",
  paraphrase: "复述",
  similarity: "相似度",
  "question-answering": "问答",
  "generative-question-answering": "生成式问答",
  "token-tagging": "实体",
  translation: "翻译",
  summarization: "摘要",
};

export function taskName(task) {
  if (language === "zh" && TASKS[task]) return TASKS[task];
  const plain = task.replaceAll("-", " ");
  return plain[0].toUpperCase() + plain.slice(1);
}
