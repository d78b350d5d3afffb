// What an answer says in numbers and words: measurements, time, engine and certificate, as rows of tables.

const CONFIDENCE = "how decided the model was, not how probable it is that the mask is right";
const STATUS = { ok: "something is marked", empty: "nothing is marked", failed: "failed", skipped: "no image in it" };

export function number(value, digits = 0) {
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

function known(value) {
  return value !== null && value !== undefined && value !== "";
}

/** The result of one case in a few words, for the list. */
export function resultInWords(views, problems) {
  const failed = views.filter(({ frame }) => frame.status === "failed").length + problems.length;
  const marked = views.filter(({ frame }) => frame.area_px > 0);
  const area = marked.reduce((sum, { frame }) => sum + frame.area_px, 0);
  const told = [];
  if (views.length > 1) told.push(marked.length ? `marked in ${marked.length} of ${views.length}` : "nothing marked");
  else told.push(area ? `${number(area)} px marked` : "nothing marked");
  if (failed) told.push(`${failed} failed`);
  return told.join(", ");
}

export function tiles(view) {
  const { frame, source } = view;
  const found = [];
  const volume = source.series?.volume_mm3;
  if (known(volume)) found.push(["Volume", millilitres(volume), `${number(volume, 1)} mm³, ${source.series.slices} slices`]);
  if (known(frame.area_mm2)) found.push(["Area", `${number(frame.area_mm2, 1)} mm²`, `${number(frame.area_px)} px`]);
  else if (known(frame.area_px)) found.push(["Area", `${number(frame.area_px)} px`, shareOf(frame)]);
  if (known(frame.confidence)) found.push(["Confidence", frame.confidence.toFixed(3), CONFIDENCE]);
  return found;
}

function millilitres(cubic) {
  return cubic >= 1000 ? `${number(cubic / 1000, 1)} mL` : `${number(cubic, 1)} mm³`;
}

function shareOf({ area_px, width, height }) {
  return `${number((100 * area_px) / (width * height), 2)} % of the image`;
}

/** Rows of [name, value] for the image that is shown. */
export function measurements({ frame, source }) {
  const series = source.series ?? {};
  const rows = [["Result", STATUS[frame.status] ?? frame.status]];
  const add = (name, value) => known(value) && rows.push([name, value]);
  add("Area", known(frame.area_px) ? `${number(frame.area_px)} px` : null);
  const inMillimetres = known(frame.area_mm2) ? `${number(frame.area_mm2, 2)} mm²` : "not known: the file has no pixel spacing";
  add("Area in mm²", known(frame.area_px) ? inMillimetres : null);
  add("Regions", frame.components);
  add("Centre", known(frame.centroid_x) ? `${number(frame.centroid_x, 1)}, ${number(frame.centroid_y, 1)} px` : null);
  if (frame.bbox) {
    const [x, y, wide, high] = frame.bbox;
    add("Box", `${wide} × ${high} px at ${x}, ${y}`);
  }
  add("Image", known(frame.width) ? `${number(frame.width)} × ${number(frame.height)} px` : null);
  if (frame.spacing) add("Pixel spacing", `${frame.spacing.map((each) => number(each, 4)).join(" × ")} mm`);
  add("Modality", frame.modality ?? series.modality);
  add("Window", frame.window);
  add("Volume of the series", known(series.volume_mm3) ? `${number(series.volume_mm3, 1)} mm³` : null);
  add("Distance of slices", known(series.slice_spacing) ? `${number(series.slice_spacing, 3)} mm` : null);
  return rows;
}

export function notesOf({ frame, source }, answer) {
  const notes = [frame.note, frame.class_note, source.series?.note, ...answer.notes.slice(1)];
  if (answer.skipped) notes.push(`${answer.skipped} of the files sent are not scans`);
  const shown = notes.filter(known).map((text) => text.charAt(0).toUpperCase() + text.slice(1));
  return [...new Set(shown)];
}

const STAGES = [
  ["decode", "Decode"],
  ["queue", "Wait for the engine"],
  ["infer", "Inference"],
  ["write", "Measure and write"],
];

/** Rows of [name, milliseconds]; the last is the way there and back as this page saw it. */
export function stages(answer, roundTrip) {
  const rows = STAGES.map(([key, name]) => [name, answer.milliseconds[key]]);
  return [...rows, ["All, seen from here", roundTrip]];
}

export function engineRows(answer) {
  const { engine } = answer;
  const classes = engine.classes.map((each) => each.name).join(", ");
  return [
    ["Name", engine.engine === engine.name ? engine.name : `${engine.name} (${engine.engine})`],
    ["Precision", engine.precision.toUpperCase()],
    ["Device", engine.device],
    ["Runs on", `${engine.backend}, ${engine.execution}`],
    ["Input", `${engine.width} × ${engine.height} px`],
    ["Marks", classes],
    ["Threshold", `probability ≥ ${number(answer.threshold, 4)}`],
    ["SHA-256", engine.manifest_sha256],
  ].filter(([, value]) => known(value));
}

/** {verdict, words, rows} of the engine's certificate. */
export function certificate(engine) {
  const found = engine.certificate;
  const hash = engine.certificate_sha256 ? [["SHA-256", engine.certificate_sha256]] : [];
  if (!found) {
    const words = hash.length
      ? "The certificate cannot be read: gms-rt parity says why."
      : "There is none: nothing proves that the masks of this engine equal those of its reference.";
    return { verdict: "none", words, rows: hash };
  }
  if (!found.about_this) {
    return { verdict: "stale", words: "It is about another build of this engine and proves nothing here.", rows: hash };
  }
  const words = found.verdict === "pass" ? "" : "The masks differ from the reference by more than the gate allows.";
  return {
    verdict: found.verdict,
    words: [words, `Compared: ${found.compared}.`].filter(Boolean).join(" "),
    rows: [
      ["Dice to the reference", `mean ${number(found.dice_mean, 4)}, lowest ${number(found.dice_min, 4)}`],
      ["Images compared", number(found.cases)],
      ["Made", found.created.slice(0, 10)],
      ...hash,
    ],
  };
}
