// Files to take away. What the page has already (a mask, the contours, the numbers) is saved as the service sent it; the
// rest is asked for in its format.

import { ServiceError } from "./api.js";

const DICOM = "application/dicom";
const NIFTI = "application/x-nifti";

/** What can be saved of a case: [{name, what, ending, accept?}]. */
export function exportsOf({ answer, views, at, forgotten }) {
  const one = answer.sources.length === 1;
  const [source] = answer.sources;
  const volume = source.series !== null || source.kind === "nifti";
  const offers = [];
  if (views[at].frame.mask_png) {
    offers.push({ name: "PNG", what: "the mask of this image: 0 and 255", ending: ".png" });
    offers.push({ name: "GeoJSON", what: "the contours of this image, as QuPath reads them", ending: ".geojson" });
  }
  if (one && source.kind === "dicom") {
    offers.push({ name: "DICOM SEG", what: "the masks as DICOM Segmentation", ending: ".seg.dcm", accept: DICOM });
  }
  if (one && volume) offers.push({ name: "NIfTI", what: "the masks as label map", ending: "_dseg.nii.gz", accept: NIFTI });
  if (!forgotten) offers.push({ name: "JSON", what: "measurements, masks and contours", ending: ".json" });
  offers.push({ name: "ZIP", what: "all files that gms-rt infer writes", ending: ".zip", accept: "application/zip" });
  return offers;
}

/** Save one, and return the name of the file. */
export async function saveExport(service, each, offer) {
  const frame = each.views[each.at].frame;
  const stem = each.title.replace(/\.(nii\.gz|[a-z0-9]{1,5})$/i, "").replace(/[^\p{L}\p{N}._-]+/gu, "-") || "scan";
  const single = ["PNG", "GeoJSON"].includes(offer.name) && each.views.length > 1;
  const name = `${stem}${single ? `-${String(each.at + 1).padStart(4, "0")}` : ""}${offer.ending}`;
  save(await content(service, each, offer, frame), name);
  return name;
}

async function content(service, each, offer, frame) {
  if (offer.accept) {
    const answer = await service.segment(each.files, { model: each.model, accept: offer.accept });
    try {
      return await answer.blob();
    } catch {
      throw new ServiceError({ reason: "unreachable", what: "The file was cut off.", fix: "Try it again." });
    }
  }
  if (offer.name === "PNG") {
    return new Blob([Uint8Array.from(atob(frame.mask_png), (sign) => sign.charCodeAt(0))], { type: "image/png" });
  }
  if (offer.name === "GeoJSON") return new Blob([JSON.stringify(frame.contours)], { type: "application/geo+json" });
  const bare = (key, value) => (key === "image_jpeg" ? undefined : value);
  return new Blob([JSON.stringify(each.answer, bare)], { type: "application/json" });
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
