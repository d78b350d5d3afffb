// The head of a DICOM file, read just far enough to know which series it belongs to. The service reads the scan itself;
// this only decides which files travel together.

const IMPLICIT = "1.2.840.10008.1.2";
const BIG_ENDIAN = "1.2.840.10008.1.2.2";
const DEFLATED = "1.2.840.10008.1.2.1.99";
const LONG = new Set(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"]);
const ITEM = 0xfffee000;
const ITEM_END = 0xfffee00d;
const SEQUENCE_END = 0xfffee0dd;
const OPEN = 0xffffffff;
const WANTED = new Map([
  [0x00080060, "modality"],
  [0x0020000e, "series"],
  [0x00200011, "number"],
  [0x00280008, "frames"],
]);
const LAST = 0x00280008;

export const PREFIX_AT = 128;

export function hasDicomPrefix(bytes) {
  return bytes.length > 131 && String.fromCharCode(...bytes.subarray(PREFIX_AT, PREFIX_AT + 4)) === "DICM";
}

/** {series, number, modality, frames} as far as these bytes tell them, each a string; null if they tell no series. */
export function seriesFromHead(bytes) {
  if (!hasDicomPrefix(bytes)) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found = {};
  try {
    const meta = readElements(view, PREFIX_AT + 4, { explicit: true, little: true }, { syntax: 0x00020010 }, 0x0002ffff);
    const syntax = meta.found.syntax ?? "";
    if (syntax === DEFLATED) return null;
    const coding = { explicit: syntax !== IMPLICIT, little: syntax !== BIG_ENDIAN };
    const wanted = Object.fromEntries([...WANTED].map(([tag, name]) => [name, tag]));
    readElements(view, meta.at, coding, wanted, LAST, found);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // the end of what was read
  }
  return found.series ? found : null;
}

function readElements(view, at, coding, wanted, last, found = {}) {
  const names = new Map(Object.entries(wanted).map(([name, tag]) => [tag, name]));
  while (at < view.byteLength) {
    const element = readHead(view, at, coding);
    if (element.tag > last) break;
    at = element.end;
    const name = names.get(element.tag);
    if (name !== undefined) found[name] = textAt(view, element.start, element.end);
    if (element.length === OPEN) at = skipOpen(view, element.start, coding);
  }
  return { at, found };
}

function readHead(view, at, { explicit, little }) {
  const tag = view.getUint16(at, little) * 0x10000 + view.getUint16(at + 2, little);
  let start = at + 8;
  let length;
  if (!explicit || tag >= ITEM) {
    length = view.getUint32(at + 4, little);
  } else {
    const kind = String.fromCharCode(view.getUint8(at + 4), view.getUint8(at + 5));
    if (LONG.has(kind)) {
      length = view.getUint32(at + 8, little);
      start = at + 12;
    } else {
      length = view.getUint16(at + 6, little);
    }
  }
  return { tag, start, length, end: length === OPEN ? start : start + length };
}

/** Where a sequence or an item of unknown length ends. */
function skipOpen(view, at, coding) {
  for (;;) {
    const element = readHead(view, at, coding);
    at = element.end;
    if (element.tag === SEQUENCE_END || element.tag === ITEM_END) return at;
    if (element.length === OPEN) at = skipOpen(view, element.start, coding);
  }
}

function textAt(view, start, end) {
  if (end > view.byteLength) throw new RangeError("cut off");
  const bytes = new Uint8Array(view.buffer, view.byteOffset + start, end - start);
  return String.fromCharCode(...bytes.subarray(0, 64)).replace(/[\0 ]+$/, "").trim();
}
