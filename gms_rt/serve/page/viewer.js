// One image with its mask and contour, drawn at its own size and shown at any. The mask is a canvas of its own over the
// image: its pixels are those of the mask, its opacity is the element's.

const MOST_PIXELS = 16_000_000; // what a canvas holds on phones; larger images are shown smaller
const STEPS = [1, 1.5, 2, 3, 4, 6, 8];

export class Viewer {
  constructor(elements) {
    this._elements = elements; // viewport, stage, image, overlay, contour
    this._zoom = 1;
    this._size = null;
    this._turn = 0; // of several images asked for quickly the last one stays
    new ResizeObserver(() => this._layOut()).observe(elements.viewport);
  }

  /** Show a frame of an answer; the classes give the colours. Resolves once its pixels are drawn. */
  async show(frame, classes) {
    const turn = ++this._turn;
    const [image, mask] = await Promise.all([
      decoded("image/jpeg", frame.image_jpeg),
      decoded("image/png", frame.mask_png),
    ]);
    if (turn !== this._turn) return;
    const { width, height } = frame.width ? frame : (image ?? mask ?? { width: 1, height: 1 });
    const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (width * height)));
    const drawn = { width: Math.round(width * scale), height: Math.round(height * scale) };
    draw(this._elements.image, drawn, image);
    draw(this._elements.overlay, drawn, mask);
    if (mask) colourMask(this._elements.overlay, classes);
    drawContour(this._elements.contour, frame.contours, width, height, classes);
    if (this._size?.width !== width || this._size?.height !== height) this._zoom = 1;
    this._size = { width, height };
    this._layOut();
    this._elements.stage.hidden = false;
  }

  clear() {
    this._turn++;
    this._size = null;
    this._elements.stage.hidden = true;
    for (const canvas of [this._elements.image, this._elements.overlay]) canvas.width = canvas.height = 0;
  }

  set opacity(percent) {
    this._elements.overlay.style.opacity = String(percent / 100);
  }

  set outline(shown) {
    this._elements.contour.style.display = shown ? "" : "none";
  }

  zoomBy(steps) {
    const at = STEPS.indexOf(this._zoom);
    this.zoomTo(STEPS[Math.min(STEPS.length - 1, Math.max(0, at + steps))]);
  }

  /** How many times the fitting size; what is in the middle stays there. */
  zoomTo(zoom) {
    const { viewport } = this._elements;
    const middle = (start, seen, all) => (start + seen / 2) / Math.max(1, all);
    const x = middle(viewport.scrollLeft, viewport.clientWidth, viewport.scrollWidth);
    const y = middle(viewport.scrollTop, viewport.clientHeight, viewport.scrollHeight);
    this._zoom = zoom;
    this._layOut();
    viewport.scrollLeft = x * viewport.scrollWidth - viewport.clientWidth / 2;
    viewport.scrollTop = y * viewport.scrollHeight - viewport.clientHeight / 2;
  }

  _layOut() {
    if (!this._size) return;
    const { viewport, stage } = this._elements;
    const { width, height } = this._size;
    const fit = Math.min(viewport.clientWidth / width, viewport.clientHeight / height);
    stage.style.width = `${Math.max(1, Math.floor(width * fit * this._zoom))}px`;
    stage.style.height = `${Math.max(1, Math.floor(height * fit * this._zoom))}px`;
  }
}

async function decoded(kind, base64) {
  if (!base64) return null;
  const image = new Image();
  image.src = `data:${kind};base64,${base64}`;
  await image.decode();
  return image;
}

function draw(canvas, { width, height }, image) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: canvas.id === "overlay" });
  context.imageSmoothingEnabled = canvas.id !== "overlay";
  if (image) context.drawImage(image, 0, 0, width, height);
}

/** Foreground takes its class's colour, everything else is clear. */
function colourMask(canvas, classes) {
  const context = canvas.getContext("2d");
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  const colours = classes.map((each) => rgbFrom(each.colour));
  const { data } = pixels;
  for (let at = 0; at < data.length; at += 4) {
    const value = data[at];
    const colour = colours.length > 1 ? colours[value - 1] : colours[0];
    if (value && colour) {
      [data[at], data[at + 1], data[at + 2]] = colour;
      data[at + 3] = 255;
    } else {
      data[at + 3] = 0;
    }
  }
  context.putImageData(pixels, 0, 0);
}

/** Vertices are corners of pixels, so the outline runs around them. */
function drawContour(svg, collection, width, height, classes) {
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const rings = (collection?.features ?? []).flatMap(({ geometry }) =>
    geometry.type === "Polygon" ? geometry.coordinates : geometry.coordinates.flat(),
  );
  const path = rings.map((ring) => `M${ring.map(([x, y]) => `${x} ${y}`).join("L")}Z`).join("");
  for (const line of svg.querySelectorAll("path")) line.setAttribute("d", path);
  svg.querySelector(".line").style.stroke = classes[0]?.colour ?? "#ff4040";
}

export function rgbFrom(colour = "#ff4040") {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
}

/** A small picture of a frame with its mask, for the list. */
export async function thumbnail(canvas, frame, classes) {
  const [image, mask] = await Promise.all([
    decoded("image/jpeg", frame.image_jpeg),
    decoded("image/png", frame.mask_png),
  ]);
  const source = image ?? mask;
  if (!source) return;
  const side = canvas.width;
  const scale = side / Math.min(source.naturalWidth, source.naturalHeight);
  const [wide, high] = [source.naturalWidth * scale, source.naturalHeight * scale];
  const place = [(side - wide) / 2, (side - high) / 2, wide, high];
  const context = canvas.getContext("2d");
  if (image) context.drawImage(image, ...place);
  if (mask) {
    const layer = Object.assign(document.createElement("canvas"), { width: side, height: side });
    layer.getContext("2d").drawImage(mask, ...place);
    colourMask(layer, classes);
    context.globalAlpha = 0.55;
    context.drawImage(layer, 0, 0);
  }
}
