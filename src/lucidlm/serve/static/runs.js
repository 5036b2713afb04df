// Training runs: their curves, which grow while they train, their samples and reports.

import { get } from "./api.js";
import { lineChart } from "./chart.js";
import { make } from "./dom.js";
import { word } from "./words.js";

const EVERY = 3000; // milliseconds between two looks at the runs
const AXES = ["step", "tokens", "seconds"];
const chosen = new Set();
const measured = new Map(); // name -> {next, rows}
let axis = "step";

async function follow(name) {
  const known = measured.get(name) ?? { next: 0, rows: [] };
  const more = await get(`/runs/metrics?name=${encodeURIComponent(name)}&after=${known.next}`);
  // A run that began again has fewer lines than before.
  const rows = more.next < known.next ? [] : known.rows.concat(more.rows);
  measured.set(name, { next: more.next < known.next ? 0 : more.next, rows });
}

function charts() {
  const names = [...chosen].filter((name) => measured.has(name));
  const figures = new Set(names.flatMap((name) => measured.get(name).rows.flatMap(Object.keys)));
  const shown = [...figures].filter((figure) => figure === "train_loss" || figure.startsWith("validation_"));
  return shown.map((figure) =>
    lineChart(
      word(figure.replace(/^validation_(?!loss)/, "")).replaceAll("_", " "),
      names.map((name) => ({
        name,
        points: measured
          .get(name)
          .rows.filter((row) => Number.isFinite(row[figure]) && Number.isFinite(row[axis]))
          .map((row) => [row[axis], row[figure]]),
      })),
    ),
  );
}

async function samples(runs) {
  const written = runs.filter((run) => chosen.has(run.name) && run.samples);
  return Promise.all(
    written.map(async ({ name }) => {
      const found = await get(`/runs/samples?name=${encodeURIComponent(name)}`);
      return make(
        "article",
        { className: "card" },
        make("h3", {}, `${word("samples")}: ${name}`),
        ...found.samples.slice(0, 8).map((one) => make("p", { className: "said" }, one.text)),
      );
    }),
  );
}

export function runsPanel() {
  const list = make("fieldset", { className: "runs" });
  const plots = make("div", { className: "charts" });
  const texts = make("div", { className: "charts" });
  const problem = make("p", { className: "error", role: "alert", hidden: true });
  const along = make("select", { id: "axis" }, ...AXES.map((name) => make("option", { value: name }, word(`along_${name}`))));
  along.value = axis;
  along.addEventListener("change", () => {
    axis = along.value;
    plot();
  });
  let runs = [];
  let listed = "";

  const plot = () => plots.replaceChildren(...charts().filter(Boolean));
  const choose = async (name, on) => {
    if (on) chosen.add(name);
    else chosen.delete(name);
    await look();
    texts.replaceChildren(...(await samples(runs)));
  };
  const row = (run) => {
    const id = `run-${run.name}`;
    const box = make("input", { type: "checkbox", id, checked: chosen.has(run.name) });
    box.addEventListener("change", () => choose(run.name, box.checked));
    const loss = run.last.validation_loss ?? run.last.train_loss;
    const facts = [run.step && word("step", run.step.toLocaleString()), loss?.toFixed(3)].filter(Boolean).join(", ");
    const report = run.report
      ? make("a", { href: `/runs/report?name=${encodeURIComponent(run.name)}`, target: "_blank", rel: "noopener" }, word("report"))
      : null;
    const status = make("span", { className: `badge ${run.status}` }, word(`status_${run.status}`));
    const name = run.curves ? make("label", { htmlFor: id }, run.name) : make("span", {}, run.name);
    return make("div", { className: "run" }, run.curves ? box : make("span"), name, status, make("small", {}, facts), report);
  };

  async function look() {
    try {
      ({ runs } = await get("/runs"));
      if (!chosen.size && runs.length) chosen.add((runs.find((run) => run.curves) ?? runs[0]).name);
      const now = JSON.stringify(runs);
      if (now !== listed) {
        listed = now;
        const focused = document.activeElement?.id;
        const shown = runs.filter((run) => run.curves || run.report);
        list.replaceChildren(make("legend", {}, word(shown.length ? "chooseRuns" : "noRuns")), ...shown.map(row));
        if (focused?.startsWith("run-")) document.getElementById(focused)?.focus();
      }
      const known = new Set(runs.filter((run) => run.curves).map((run) => run.name));
      await Promise.all([...chosen].filter((name) => known.has(name)).map(follow));
      plot();
      problem.hidden = true;
    } catch (error) {
      problem.textContent = word("failed", error.message);
      problem.hidden = false;
    }
  }

  look().then(async () => texts.replaceChildren(...(await samples(runs))));
  const timer = setInterval(() => document.hidden || look(), EVERY);
  const element = make(
    "div",
    { className: "split runs-panel" },
    make("section", { "aria-label": word("runs") }, problem, plots, texts),
    make(
      "aside",
      { className: "card" },
      make("div", { className: "field" }, make("label", { htmlFor: "axis" }, word("along")), along),
      list,
    ),
  );
  return { element, close: () => clearInterval(timer) };
}
