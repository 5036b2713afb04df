// What the page says, in English and Chinese.

const WORDS = {
  skip: ["Skip to content", "跳到正文"],
  other: ["中文", "English"],
  model: ["Model", "模型"],
  chat: ["Chat", "对话"],
  completion: ["Completion", "续写"],
  search: ["Search", "搜索"],
  inspect: ["Look inside", "透视"],
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
  steering: ["Steering", "转向"],
  steeringHint: ["How strongly each vector is added; 0: not at all. Far from 0 the text comes apart.", "每个向量加多强；0：不加。离 0 太远，文本会散乱。"],
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
  cut_length: ["Cut short: the most tokens were reached, or the model's context was full.", "未写完：达到最多词元，或模型的上下文已满。"],
  cut_content_filter: ["Cut short: what came next did not pass the server's guard.", "未写完：后面的内容没有通过服务器的把关。"],
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
  whyPart: [
    "The passage is too long to be read at once: shown is where the answer is found, characters {0} to {1}.",
    "这段文字太长，一次读不完：这里是找到答案的部分，第 {0} 至 {1} 个字符。",
  ],
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
  look: ["Look inside", "透视"],
  view: ["What to show", "看什么"],
  view_attention: ["Attention: where heads look", "注意力：各个头看向哪里"],
  view_attentionHint: [
    "Each row is a token, each column one that it looks at. Weights say where a head looks, not that it matters.",
    "每行是一个词元，每列是它看向的词元。权重说明头看向哪里，不说明这有没有用。",
  ],
  view_lens: ["Logit lens: what each layer would answer", "logit 透镜：每层会怎么答"],
  view_lensHint: ["The model's own head reads each layer as if it were the last one.", "模型自己的输出头读每一层，仿佛那是最后一层。"],
  view_norms: ["Norms: how large states are", "范数：状态有多大"],
  view_normsHint: ["The residual stream after each layer, and what attention and MLP add to it.", "每层之后的残差流，以及注意力和 MLP 加进去的部分。"],
  view_logits: ["Logits: what writes the answer", "logit：答案由什么写出"],
  view_logitsHint: [
    "What each head, MLP and neuron adds to the answer's logit, the next token's or a label's.",
    "每个头、MLP 和神经元给答案（下一个词元或标签）的 logit 加了多少。",
  ],
  layer: ["Layer", "层"],
  head: ["Head", "头"],
  allHeads: ["all", "全部"],
  target: ["Answer", "答案"],
  targetHint: ["the likeliest", "最可能的"],
  foil: ["Less the logit of", "减去谁的 logit"],
  foilHint: ["nothing", "不减"],
  lostWithout: ["What the answer loses without each head, in nats", "去掉每个头，答案损失多少（奈特）"],
  sink: [
    "{0} of the weight of later tokens rests on the first one, {1}; even weights would put {2} there.",
    "后面的词元有 {0} 的权重落在第一个词元 {1} 上；均匀的权重会是 {2}。",
  ],
  needed: ["Taking out {0} changes the answer most, by {1} nats.", "去掉{0}对答案的改变最大：{1} 奈特。"],
  likeliest: ["The likeliest token at each position, by layer; the stronger the colour, the likelier", "每层在每个位置最可能的词元；颜色越深越可能"],
  divergence: ["Divergence from the final distribution, in nats", "与最终分布的散度（奈特）"],
  labelChances: ["The probability of each label, by layer", "每层给每个标签的概率"],
  labelAgree: ["{0} of the rows before the last give the final label; all from {1} on.", "最后一行之前，{0} 的行给出最终的标签；从{1}起全部如此。"],
  labelHint: ["The head was trained on the last row alone.", "输出头只在最后一行上训练过。"],
  lensAgree: [
    "Before the last layer {0} of the tokens shown are the final ones: from {1} ({2}) to {3} ({4}).",
    "最后一层之前，显示的词元有 {0} 与最终的相同：从 {1}（{2}）到 {3}（{4}）。",
  ],
  lensSpread: ["Divergence from the final distribution: {0} to {1} nats.", "与最终分布的散度：{0} 到 {1} 奈特。"],
  lensHint: ["Where few agree, early rows say little: they are what the head would read there, not what the model has decided.", "相同的很少时，前面的行说明不了什么：那是输出头会读到的，不是模型已经决定的。"],
  normStream: ["The residual stream after each layer", "每层之后的残差流"],
  normAttention: ["What attention adds", "注意力加进去的"],
  normMlp: ["What the MLP adds", "MLP 加进去的"],
  normLargest: ["The largest state is {0}, {1} times the median of its row.", "最大的状态是 {0}，是所在行中位数的 {1} 倍。"],
  normHint: ["These are exact, and sizes only: a large state is not an important one.", "这些是精确的，但只是大小：大的状态不一定重要。"],
  addedTo: ["Added to the logit of {0}", "给 {0} 的 logit 加了多少"],
  topNeurons: ["The {0} neurons that add or take off most", "加减最多的 {0} 个神经元"],
  logitLost: ["What the logit loses without each head", "去掉每个头，logit 损失多少"],
  logitSum: ["The parts sum to {0}, the logit is {1}.", "各部分之和是 {0}，logit 是 {1}。"],
  logitAgree: [
    "Only what is written straight to the logit counts, not what later layers make of it: with what is lost without each head its rank correlation is {0} [{1}, {2}].",
    "只算直接写进 logit 的，不算后面的层由此做出的：与去掉每个头的损失相比，秩相关为 {0} [{1}, {2}]。",
  ],
  logitFew: ["Only what is written straight to the logit counts; there are too few heads to compare it with what is lost without each.", "只算直接写进 logit 的；头太少，无法与去掉每个头的损失比较。"],
  ngramsLeftOut: ["The n-grams that this model counts beside its Transformer are not looked into.", "这个模型在 Transformer 之外统计的 n 元组不在其内。"],
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

const PLACES = { layer: "第 {0} 层", head: "头 {0}", neuron: "神经元 {0}" };
const PARTS = { embeddings: "嵌入", biases: "偏置", added: "加了" };

// What a part of a model is called, which the server has in English: "layer 3, head 1".
export function placeName(name) {
  if (language !== "zh") return name;
  const places = name.replace(/(layer|head|neuron) (\d+)/g, (_, kind, index) => PLACES[kind].replace("{0}", index));
  return PARTS[places] ?? places.replaceAll(", ", "，");
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
