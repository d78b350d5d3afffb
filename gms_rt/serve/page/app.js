// The page: scans in, masks seen. State is a list of cases in memory; nothing of a scan is stored or put into addresses.

import { Service, ServiceError } from "./api.js";
import { casesFromFiles, filesFromDrop, filesFromList, sizeInWords } from "./gather.js";
import { exportsOf, saveExport } from "./exports.js";
import { certificate, engineRows, measurements, notesOf, number, resultInWords, stages, tiles } from "./facts.js";
import { Uploads } from "./uploads.js";
import { Viewer, rgbFrom, thumbnail } from "./viewer.js";

const KEPT = 256 * 1024 * 1024; // characters of masks and images that are held; older ones are asked for again
const $ = (id) => document.getElementById(id);
const cases = [];
let selected = null;
let limits = {};
let counter = 0;

const service = new Service(askToken);
const uploads = new Uploads(sendCase, caseChanged);
const viewer = new Viewer({
  viewport: $("viewport"),
  stage: $("stage"),
  image: $("image"),
  overlay: $("overlay"),
  contour: $("contour"),
});

// ---- the service

async function connect() {
  try {
    const found = await service.description();
    limits = found.limits;
    $("version").textContent = found.version;
    const model = $("model");
    model.replaceChildren(...found.models.map((name) => new Option(name, name)));
    $("model-field").hidden = found.models.length < 2;
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
  }
  await checkHealth();
}

async function checkHealth() {
  const ready = await service.isReady();
  const health = $("health");
  const text = ready ? "ready" : ready === null ? "not reached" : "not ready yet";
  if (health.textContent !== text) health.textContent = text;
  health.className = `badge ${ready ? "good" : ready === null ? "bad" : "warn"}`;
  if (!ready) setTimeout(ready === null ? connect : checkHealth, 4000);
}

function askToken(wrong) {
  const dialog = $("token-dialog");
  $("token-told").textContent = wrong
    ? "That token is not right. Whoever runs the service has it."
    : "Whoever runs the service has it. It is kept until this tab is closed.";
  $("token").value = "";
  dialog.showModal();
  return new Promise((done) => {
    dialog.onclose = () => {
      const given = $("token").value.trim();
      $("token").value = "";
      done(dialog.returnValue === "given" ? given : null);
    };
    dialog.returnValue = "";
  });
}

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = $("token");
  // Other signs cannot be sent in a header.
  field.setCustomValidity(/^[\x21-\x7e]+$/.test(field.value.trim()) ? "" : "A token has letters, digits and signs only.");
  if (field.reportValidity()) $("token-dialog").close("given");
});
$("token").addEventListener("input", () => $("token").setCustomValidity(""));
$("token-cancel").addEventListener("click", () => $("token-dialog").close(""));

// ---- scans come in

async function take(promise) {
  service.declined = false;
  const files = await promise;
  if (!files.length) return;
  const { cases: found, skipped } = await casesFromFiles(files, (done, all) => {
    if (all > 50) tell(`Looking at files: ${number(done)} of ${number(all)}`);
  });
  const left = skipped ? `${number(skipped)} ${skipped === 1 ? "file that is" : "files that are"} not a scan left out.` : "";
  tell(found.length ? left : `There is no scan among ${number(files.length)} files.`);
  for (const each of found) addCase(each);
  if (found.length && selected === null) select(cases[cases.length - found.length]);
  render();
}

function addCase(found) {
  const each = { ...found, id: `case-${++counter}`, state: "waiting", views: [], problems: [], at: 0, weight: 0 };
  each.row = rowOf(each);
  cases.push(each);
  $("cases").append(each.row);
  start(each);
}

function start(each, first = false) {
  each.error = null;
  const tooLarge = reasonTooLarge(each);
  if (tooLarge) caseChanged(each, "failed", 0, tooLarge);
  else uploads.add(each, first);
}

function reasonTooLarge({ bytes, files }) {
  const what =
    limits.max_bytes && bytes + 400 * files.length > limits.max_bytes
      ? `It has ${sizeInWords(bytes)}; the service takes ${sizeInWords(limits.max_bytes)} at a time.`
      : limits.max_files && files.length > limits.max_files
        ? `It has ${number(files.length)} files; the service takes ${number(limits.max_files)} at a time.`
        : null;
  const fix = "Send a part of it, or have whoever runs the service raise its limit (--max-bytes, --max-files).";
  return what && new ServiceError({ reason: "too_large", what, fix });
}

async function sendCase(each, signal) {
  const begun = performance.now();
  const model = $("model").value;
  const response = await service.segment(each.files, { model, signal });
  let answer;
  try {
    answer = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError({ reason: "unreachable", what: "The answer was cut off.", fix: "Segment it again." });
  }
  const again = each.forgotten;
  each.model = model;
  each.roundTrip = performance.now() - begun;
  each.answer = answer;
  each.views = answer.sources.flatMap((source) => source.frames.map((frame) => ({ source, frame })));
  each.problems = answer.sources.filter((source) => source.error && !source.frames.length);
  each.weight = weightOf(each.views);
  each.forgotten = false;
  if (!again) each.at = fullest(each.views);
  forgetOldest(each);
}

function weightOf(views) {
  return views.reduce((sum, { frame }) => sum + (frame.image_jpeg?.length ?? 0) + (frame.mask_png?.length ?? 0), 0);
}

/** A stack opens where most is marked. */
function fullest(views) {
  let best = 0;
  views.forEach(({ frame }, index) => {
    if ((frame.area_px ?? 0) > (views[best].frame.area_px ?? 0)) best = index;
  });
  return best;
}

/** Images and masks of what was looked at longest ago are let go; numbers stay. */
function forgetOldest(but) {
  let held = cases.reduce((sum, each) => sum + each.weight, 0);
  for (const each of [...cases].sort((a, b) => (a.seen ?? 0) - (b.seen ?? 0))) {
    if (held <= KEPT) return;
    if (each === but || each === selected || !each.weight) continue;
    for (const { frame } of each.views) frame.image_jpeg = frame.mask_png = frame.contours = null;
    held -= each.weight;
    each.weight = 0;
    each.forgotten = true;
  }
}

// ---- the list

function caseChanged(each, state, seconds = 0, error = null) {
  each.state = state;
  each.seconds = seconds;
  each.error = error;
  if (error?.reason === "unreachable") checkHealth();
  renderRow(each);
  if (state === "done" || state === "failed") announce(each);
  if (each === selected) renderSelected();
  renderCount();
}

function rowOf(each) {
  const row = document.createElement("li");
  row.id = each.id;
  row.setAttribute("role", "option");
  row.setAttribute("aria-selected", "false");
  const thumb = Object.assign(document.createElement("canvas"), { width: 88, height: 88 });
  thumb.setAttribute("aria-hidden", "true");
  const words = element("span", "words");
  words.append(element("span", "name", each.title), element("span", "state"));
  row.append(thumb, words);
  row.title = each.folder ? `${each.folder}/${each.title}` : each.title;
  row.addEventListener("click", () => select(each));
  return row;
}

function stateInWords({ state, seconds, error, views, problems, forgotten }) {
  if (forgotten && state !== "failed") return resultInWords(views, problems);
  if (state === "waiting") return "waiting";
  if (state === "paused") return `busy: again in ${seconds} s`;
  if (state === "working") return "segmenting …";
  if (state === "failed") return `failed: ${error.title.charAt(0).toLowerCase()}${error.title.slice(1)}`;
  return resultInWords(views, problems);
}

function renderRow(each) {
  const partly = each.state === "done" && (each.problems.length || each.views.some(({ frame }) => frame.status === "failed"));
  each.row.dataset.state = partly ? "partly" : each.state;
  each.row.querySelector(".state").textContent = stateInWords(each);
  if (each.state === "done" && each.views.length && !each.forgotten) {
    thumbnail(each.row.querySelector("canvas"), each.views[fullest(each.views)].frame, each.answer.engine.classes);
  }
}

function renderCount() {
  const done = cases.filter((each) => each.state === "done").length;
  const failed = cases.filter((each) => each.state === "failed").length;
  const text = `${done} of ${cases.length} done${failed ? `, ${failed} failed` : ""}`;
  $("count").textContent = cases.length ? text : "";
  document.title = uploads.unfinished ? `(${done}/${cases.length}) gms-rt` : "gms-rt";
}

let silence = null;
const news = [];

/** Screen readers hear of results, several in one sentence if they come quickly. */
function announce(each) {
  news.push(`${each.title}: ${stateInWords(each)}`);
  silence ??= setTimeout(() => {
    silence = null;
    const all = news.splice(0);
    $("live").textContent = all.length <= 2 ? all.join(". ") : `${all.length} more scans ready. ${$("count").textContent}`;
  }, 700);
}

function tell(text) {
  $("told").textContent = text;
  $("live").textContent = text;
  if (!cases.length && text) render();
}

function select(each) {
  if (selected) selected.row.setAttribute("aria-selected", "false");
  selected = each;
  if (each) {
    each.seen = performance.now();
    each.row.setAttribute("aria-selected", "true");
    $("cases").setAttribute("aria-activedescendant", each.id);
    each.row.scrollIntoView({ block: "nearest" });
    if (each.forgotten && each.state === "done") start(each, true);
  } else {
    $("cases").removeAttribute("aria-activedescendant");
  }
  $("export-told").textContent = "";
  renderSelected();
}

function removeCase(each) {
  const index = cases.indexOf(each);
  uploads.remove(each);
  each.row.remove();
  cases.splice(index, 1);
  if (each === selected) select(cases[Math.min(index, cases.length - 1)] ?? null);
  render();
}

$("cases").addEventListener("keydown", (event) => {
  if (!cases.length || event.altKey || event.ctrlKey || event.metaKey) return;
  const index = cases.indexOf(selected);
  const to = {
    ArrowDown: Math.min(cases.length - 1, index + 1),
    ArrowUp: Math.max(0, index - 1),
    Home: 0,
    End: cases.length - 1,
  }[event.key];
  if (to !== undefined) select(cases[to]);
  else if (event.key === "Delete" && selected) removeCase(selected);
  else if (event.key === "Enter" || event.key === " ") $("viewport").focus();
  else return;
  event.preventDefault();
});

$("clear").addEventListener("click", () => {
  for (const each of [...cases]) {
    uploads.remove(each);
    each.row.remove();
  }
  cases.length = 0;
  select(null);
  tell("");
  render();
  $("pick-files").focus();
});
$("again").addEventListener("click", () => {
  service.declined = false;
  start(selected, true);
});
$("remove").addEventListener("click", () => {
  removeCase(selected);
  (cases.length ? $("cases") : $("pick-files")).focus();
});

// ---- the scan that is looked at

function element(name, kind = "", text = "") {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (text !== "") made.textContent = text;
  return made;
}

function render() {
  document.body.classList.toggle("filled", cases.length > 0);
  $("cases-part").hidden = !cases.length && !$("told").textContent;
  $("cases").hidden = $("clear").hidden = !cases.length;
  renderCount();
  renderSelected();
}

function renderSelected() {
  $("viewer").hidden = selected === null;
  const view = selected?.views[selected.at];
  $("facts").hidden = !view;
  if (!selected) return;
  $("case-title").textContent = selected.title;
  $("case-detail").textContent = [selected.detail, selected.folder].filter(Boolean).join(" · ");
  const busy = ["waiting", "paused", "working"].includes(selected.state);
  $("again").hidden = busy;
  $("loading").hidden = !busy;
  $("loading-text").textContent = stateInWords({ ...selected, forgotten: false });
  renderMessage();
  $("shown").hidden = !view && !busy;
  $("tools").hidden = !view;
  if (view) renderView();
  else {
    viewer.clear();
    $("frames").hidden = true;
  }
}

function renderMessage() {
  const { error, problems, views, at } = selected;
  const frame = views[at]?.frame;
  let told = null;
  if (error) told = [error.title, error.what, error.fix && `What to do: ${error.fix}`];
  else if (frame?.status === "failed") told = ["This image failed", frame.error ?? "", "The other images are not concerned."];
  else if (problems.length) {
    const list = problems.map(({ name, error: why }) => `${name}: ${why}`);
    told = [`${problems.length === 1 ? "One file" : `${problems.length} files`} could not be segmented`, list.join("; "), ""];
  }
  $("message").hidden = told === null;
  if (!told) return;
  ["message-title", "message-what", "message-fix"].forEach((id, index) => ($(id).textContent = told[index] ?? ""));
}

function renderView() {
  const { views, at, answer } = selected;
  const view = views[at];
  const { classes } = answer.engine;
  $("frames").hidden = views.length < 2;
  if (views.length > 1) {
    $("frame").max = String(views.length);
    $("frame").value = String(at + 1);
    const named = new Set(views.map(({ source }) => source.name)).size > 1;
    const text = `${at + 1} of ${views.length}${named ? `: ${view.source.name}` : ""}`;
    $("frame-text").textContent = text;
    $("frame").setAttribute("aria-valuetext", `${text}, ${resultInWords([view], [])}`);
    $("previous").disabled = at === 0;
    $("next").disabled = at === views.length - 1;
    renderAreas();
  }
  $("seen").textContent = `${resultInWords([view], [])}. ${views.length > 1 ? `Image ${at + 1} of ${views.length}. ` : ""}`;
  $("overlay").setAttribute("aria-label", `Scan with its mask: ${resultInWords([view], [])}`);
  showPixels(view, classes);
  renderFacts(view);
}

async function showPixels(view, classes) {
  const key = view.frame;
  if (view.frame.status === "failed" || (!view.frame.mask_png && selected.forgotten)) {
    viewer.clear();
    shownFrame = null;
    return;
  }
  if (shownFrame === key && !$("stage").hidden) return;
  shownFrame = key;
  await viewer.show(view.frame, classes);
}
let shownFrame = null;

function renderAreas() {
  const { views, at } = selected;
  const svg = $("areas");
  const most = Math.max(1, ...views.map(({ frame }) => frame.area_px ?? 0));
  svg.setAttribute("viewBox", `0 0 ${views.length} 1`);
  svg.replaceChildren(
    ...views.map(({ frame }, index) => {
      const high = (frame.area_px ?? 0) / most;
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      const place = { x: index + 0.1, y: 1 - high, width: 0.8, height: high };
      for (const [name, value] of Object.entries(place)) bar.setAttribute(name, value);
      if (index === at) bar.classList.add("here");
      return bar;
    }),
  );
}

function fillTable(body, rows) {
  body.replaceChildren(
    ...rows.map(([name, value]) => {
      const row = element("tr");
      const head = element("th", "", name);
      head.scope = "row";
      const cell = element("td", /^[0-9a-f]{64}$/.test(value) ? "hash" : "", String(value));
      row.append(head, cell);
      return row;
    }),
  );
}

function renderFacts(view) {
  const { answer, roundTrip } = selected;
  $("headline").replaceChildren(
    ...tiles(view).map(([name, value, note]) => {
      const tile = element("div", "tile");
      tile.append(element("p", "name", name), element("p", "big", value), element("p", "small", note));
      return tile;
    }),
  );
  fillTable($("numbers"), measurements(view));
  $("notes").replaceChildren(...notesOf(view, answer).map((text) => element("li", "", text)));
  renderTimes(stages(answer, roundTrip));
  fillTable($("engine"), engineRows(answer));
  const [red, green, blue] = rgbFrom(answer.engine.classes[0]?.colour);
  document.documentElement.style.setProperty("--mark", `rgb(${red} ${green} ${blue})`);
  renderCertificate(certificate(answer.engine));
  renderExports();
}

function renderTimes(rows) {
  const most = Math.max(...rows.map(([, value]) => value));
  fillTable($("times"), rows.map(([name, value]) => [name, `${number(value, value < 100 ? 1 : 0)} ms`]));
  [...$("times").rows].forEach((row, index) => {
    const cell = element("td", "bar");
    cell.setAttribute("aria-hidden", "true");
    const bar = element("span");
    bar.style.width = `${(100 * rows[index][1]) / most}%`;
    cell.append(bar);
    row.firstChild.after(cell);
  });
}

function renderCertificate({ verdict, words, rows }) {
  const kind = { pass: "good", fail: "bad" }[verdict] ?? "warn";
  const name = { pass: "passed", fail: "failed", none: "none", stale: "does not fit" }[verdict] ?? verdict;
  const table = element("table");
  const body = element("tbody");
  table.append(element("caption", "unseen", "The certificate of the engine"), body);
  fillTable(body, rows);
  const verdictLine = element("p", "verdict");
  verdictLine.append(element("span", `badge ${kind}`, name), ` ${words}`);
  $("certificate").replaceChildren(verdictLine, ...(rows.length ? [table] : []));
}

function renderExports() {
  const each = selected;
  const offers = exportsOf(each);
  const named = offers.map((offer) => offer.name).join();
  const holder = $("export-buttons");
  if (holder.dataset.offers === `${each.id} ${named}`) return;
  holder.dataset.offers = `${each.id} ${named}`;
  holder.replaceChildren(
    ...offers.map((offer) => {
      const button = element("button", "", offer.name);
      button.type = "button";
      button.title = offer.what;
      button.addEventListener("click", () => exportCase(each, offer, button));
      return button;
    }),
  );
}

async function exportCase(each, offer, button) {
  const told = $("export-told");
  told.classList.remove("bad");
  told.textContent = `${offer.name}: being made …`;
  button.disabled = true;
  try {
    service.declined = false;
    const name = await saveExport(service, each, offer);
    if (each === selected) told.textContent = `${name} is saved.`;
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    told.classList.add("bad");
    const wait = error.retryAfter ? "" : error.fix;
    told.textContent = `${offer.name}: ${error.title.toLowerCase()}. ${error.what} ${wait}`;
  } finally {
    button.disabled = false;
    button.focus();
  }
}

// ---- looking around

function goTo(index) {
  if (!selected?.views.length) return;
  const to = Math.max(0, Math.min(selected.views.length - 1, index));
  if (to === selected.at) return;
  selected.at = to;
  renderSelected();
}

function setOpacity(percent) {
  const value = Math.max(0, Math.min(100, percent));
  $("opacity").value = String(value);
  $("opacity-text").textContent = `${value} %`;
  viewer.opacity = value;
}

function setOutline(shown) {
  $("outline").checked = shown;
  viewer.outline = shown;
}

let lastOpacity = 45;
function toggleMask() {
  const now = Number($("opacity").value);
  if (now > 0) lastOpacity = now;
  setOpacity(now > 0 ? 0 : lastOpacity);
}

$("frame").addEventListener("input", () => goTo(Number($("frame").value) - 1));
$("previous").addEventListener("click", () => goTo(selected.at - 1));
$("next").addEventListener("click", () => goTo(selected.at + 1));
$("opacity").addEventListener("input", () => setOpacity(Number($("opacity").value)));
$("outline").addEventListener("change", () => setOutline($("outline").checked));
$("smaller").addEventListener("click", () => viewer.zoomBy(-1));
$("larger").addEventListener("click", () => viewer.zoomBy(1));
$("fit").addEventListener("click", () => viewer.zoomTo(1));
$("keys").addEventListener("click", () => $("keys-dialog").showModal());
$("keys-close").addEventListener("click", () => $("keys-dialog").close());
$("viewport").addEventListener(
  "wheel",
  (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    viewer.zoomBy(event.deltaY < 0 ? 1 : -1);
  },
  { passive: false },
);

const FRAME_KEYS = {
  ArrowLeft: () => goTo(selected.at - 1),
  ArrowRight: () => goTo(selected.at + 1),
  Home: () => goTo(0),
  End: () => goTo(Infinity),
};
const VIEW_KEYS = {
  m: toggleMask,
  c: () => setOutline(!$("outline").checked),
  "[": () => setOpacity(Number($("opacity").value) - 10),
  "]": () => setOpacity(Number($("opacity").value) + 10),
  "+": () => viewer.zoomBy(1),
  "=": () => viewer.zoomBy(1),
  "-": () => viewer.zoomBy(-1),
  0: () => viewer.zoomTo(1),
};

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || !selected?.views.length) return;
  const inViewport = event.target === $("viewport");
  if (!inViewport && event.target !== document.body) return;
  const several = selected.views.length > 1 && !event.shiftKey;
  const action = (several && FRAME_KEYS[event.key]) || (inViewport && VIEW_KEYS[event.key.toLowerCase()]);
  if (!action) return;
  event.preventDefault();
  action();
});

// ---- drop, choose, paste

$("pick-files").addEventListener("click", () => $("files").click());
$("pick-folder").addEventListener("click", () => $("folder").click());
$("pick-folder").hidden = !("webkitdirectory" in $("folder"));
for (const id of ["files", "folder"]) {
  $(id).addEventListener("change", () => {
    const found = filesFromList($(id).files);
    $(id).value = "";
    take(found);
  });
}

let inside = 0; // dragenter and dragleave come for every element
function dragging(event) {
  return [...event.dataTransfer.types].includes("Files");
}
document.addEventListener("dragenter", (event) => {
  if (!dragging(event)) return;
  event.preventDefault();
  inside++;
  $("dropping").hidden = false;
});
document.addEventListener("dragover", (event) => {
  if (!dragging(event)) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = "copy";
});
document.addEventListener("dragleave", (event) => {
  if (!dragging(event)) return;
  inside = Math.max(0, inside - 1);
  $("dropping").hidden = inside === 0;
});
document.addEventListener("drop", (event) => {
  if (!dragging(event)) return;
  event.preventDefault();
  inside = 0;
  $("dropping").hidden = true;
  take(filesFromDrop(event.dataTransfer));
});

let pasted = 0;
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (!files.length) return;
  event.preventDefault();
  const number = () => (files.length === 1 && !pasted ? "" : ` ${pasted + 1}`);
  take(
    files.map((file) => {
      const found = { file, path: file.name === "image.png" ? `pasted picture${number()}.png` : file.name, lone: true };
      pasted++;
      return found;
    }),
  );
});

setOpacity(45);
setOutline(true);
render();
connect();
