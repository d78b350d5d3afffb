// What a person dropped, chose or pasted → cases: files that travel in one request. The slices of a DICOM series are one
// case, every other scan is its own. Of a folder, what is not a scan is counted and left out; of single files nothing is
// left out, so that the service can say what is wrong with them.

import { hasDicomPrefix, seriesFromHead } from "./dicom.js";

const HEAD = 64 * 1024; // bytes of a file that are looked at
const AT_A_TIME = 8;

/** The files of a drop as [{file, path, lone}]. Call it in the event itself: the browser forgets the drop after. */
export function filesFromDrop(transfer) {
  const entries = [...transfer.items]
    .filter((item) => item.kind === "file")
    .map((item) => ({ entry: item.webkitGetAsEntry?.() ?? null, file: item.getAsFile() }));
  return walk(entries);
}

async function walk(entries) {
  const found = [];
  const folders = [];
  for (const { entry, file } of entries) {
    if (entry?.isDirectory) folders.push(entry);
    else if (file) found.push({ file, path: file.name, lone: true });
  }
  while (folders.length) {
    const folder = folders.pop();
    for (const entry of await childrenOf(folder)) {
      if (entry.isDirectory) folders.push(entry);
      else {
        const file = await new Promise((done) => entry.file(done, () => done(null)));
        if (file) found.push({ file, path: entry.fullPath.replace(/^\//, ""), lone: false });
      }
    }
  }
  return found;
}

async function childrenOf(folder) {
  const reader = folder.createReader();
  const children = [];
  for (;;) {
    const some = await new Promise((done) => reader.readEntries(done, () => done([]))); // a hundred at a time
    if (!some.length) return children;
    children.push(...some);
  }
}

/** The files of a file input or of the clipboard, in the same form. */
export function filesFromList(list) {
  return [...list].map((file) => ({
    file,
    path: file.webkitRelativePath || file.name,
    lone: !file.webkitRelativePath,
  }));
}

/** {cases, skipped}: cases as {title, detail, files: [{file, path, kind}], bytes, dicom}. */
export async function casesFromFiles(given, onProgress) {
  const files = [...given].sort((a, b) => a.path.localeCompare(b.path, undefined, { numeric: true }));
  const looks = new Array(files.length);
  let next = 0;
  let done = 0;
  const look = async () => {
    while (next < files.length) {
      const index = next++;
      looks[index] = await lookAt(files[index]);
      onProgress(++done, files.length);
    }
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, look));

  const groups = new Map();
  let skipped = 0;
  files.forEach((each, index) => {
    const seen = looks[index];
    if (seen.kind === null && !each.lone) {
      skipped++;
      return;
    }
    const key = seen.together ?? `file ${index}`;
    const group = groups.get(key) ?? { files: [], seen };
    group.files.push({ ...each, kind: seen.kind });
    groups.set(key, group);
  });
  return { cases: [...groups.values()].map(caseFromGroup), skipped };
}

async function lookAt({ file, path, lone }) {
  let bytes;
  try {
    bytes = new Uint8Array(await file.slice(0, HEAD).arrayBuffer());
  } catch {
    return { kind: lone ? "unreadable" : null };
  }
  const kind = kindOf(bytes, path);
  if (kind !== "dicom") return { kind };
  const head = seriesFromHead(bytes);
  if (head && Number(head.frames ?? 1) > 1) return { kind, head }; // a loop or a volume of its own
  return { kind, head, together: head ? `series ${head.series}` : lone ? undefined : `folder ${folderOf(path)}` };
}

/** "picture", "dicom", "nifti", "zip", or null for what is not a scan: by content, as the service judges. */
export function kindOf(bytes, path) {
  const starts = (...values) => values.every((value, index) => bytes[index] === value);
  const name = path.split("/").pop().toLowerCase();
  if (name === "dicomdir") return null;
  if (hasDicomPrefix(bytes)) return "dicom";
  if (starts(0x50, 0x4b, 3, 4)) return "zip";
  if (starts(0x89, 0x50, 0x4e, 0x47) || starts(0xff, 0xd8, 0xff) || starts(0x42, 0x4d)) return "picture";
  if (starts(0x49, 0x49, 0x2a, 0) || starts(0x49, 0x49, 0x2b, 0)) return "picture";
  if (starts(0x4d, 0x4d, 0, 0x2a) || starts(0x4d, 0x4d, 0, 0x2b)) return "picture";
  if (starts(0x52, 0x49, 0x46, 0x46) && String.fromCharCode(...bytes.subarray(8, 12)) === "WEBP") return "picture";
  if (starts(0x1f, 0x8b)) return name.endsWith(".nii.gz") || !name.includes(".") ? "nifti" : null;
  const one = String.fromCharCode(...bytes.subarray(344, 347));
  if (one === "n+1" || one === "ni1" || String.fromCharCode(...bytes.subarray(4, 7)) === "n+2") return "nifti";
  return /\.(dcm|dicom|ima)$/.test(name) && bytes.length > 8 ? "dicom" : null; // without the usual prefix
}

const WORDS = { picture: "picture", dicom: "DICOM", nifti: "NIfTI", zip: "ZIP archive" };

function caseFromGroup({ files, seen }) {
  const bytes = files.reduce((sum, each) => sum + each.file.size, 0);
  const first = files[0].path;
  const folder = folderOf(first);
  const several = files.length > 1;
  const number = seen.head?.number ? `series ${seen.head.number}` : "series";
  const title = several ? [folder.split("/").pop(), number].filter(Boolean).join(", ") : first.split("/").pop();
  const what = several
    ? `${seen.head?.modality ? `${seen.head.modality}, ` : ""}${files.length.toLocaleString("en")} DICOM files`
    : (WORDS[seen.kind] ?? "file");
  return { title, detail: `${what}, ${sizeInWords(bytes)}`, folder, files, bytes, dicom: seen.kind === "dicom" };
}

function folderOf(path) {
  return path.includes("/") ? path.slice(0, path.lastIndexOf("/")) : "";
}

export function sizeInWords(bytes) {
  if (bytes < 1e3) return `${bytes} bytes`;
  if (bytes < 1e6) return `${Math.round(bytes / 1e3)} kB`;
  return `${(bytes / 1e6).toLocaleString("en", { maximumFractionDigits: bytes < 1e7 ? 1 : 0 })} MB`;
}
