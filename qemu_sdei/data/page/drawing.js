// The timeline as a picture, and the pointer and keys on it.
const frame = byId("timeline"), drawing = byId("drawing"), overview = byId("overview"), tip = byId("tip");
let palette = colours(), drawn = 0;

const gutter = () => (frame.clientWidth < 600 ? 40 : 62);
const scale = () => (frame.clientWidth - gutter()) / (view.to - view.from);  // pixels for a nanosecond
const xOf = (at) => gutter() + (at - view.from) * scale();
const atOf = (x) => view.from + (x - gutter()) / scale();

// A canvas as sharp as the screen, `width` by `height` in CSS pixels.
const prepared = (canvas, width, height) => {
  const ratio = Math.min(window.devicePixelRatio || 1, 3);
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = width + "px";
    canvas.style.height = height + "px";
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = '11px system-ui, "DejaVu Sans", sans-serif';
  context.textBaseline = "middle";
  return context;
};

// Times that are marked: as many as there is room for, at round numbers.
const marks = (width) => {
  const wanted = (view.to - view.from) / Math.max(Math.floor((width - gutter()) / (width < 600 ? 75 : 120)), 1);
  const power = 10 ** Math.floor(Math.log10(wanted));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= wanted);
  const digits = Math.min(Math.max(9 - Math.floor(Math.log10(step) + 1e-9), 0), 9);
  const found = [];
  for (let n = Math.ceil(view.from / step); n * step <= view.to; n++) {
    found.push({ x: xOf(n * step), text: seconds(n * step, digits) + " s" });
  }
  return found;
};

// Lines behind what is drawn already, and the times above all of it.
const drawAxis = (context, width, height) => {
  const found = marks(width);
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = palette.soft;
  for (const { x } of found) context.fillRect(Math.round(x), AXIS - 4, 1, height);
  context.globalCompositeOperation = "source-over";
  context.clearRect(0, 0, width, AXIS - 4);
  context.fillStyle = palette.muted;
  context.textAlign = "center";
  let done = gutter() - 20;
  for (const { x, text } of found) {
    const half = context.measureText(text).width / 2;
    if (x - half < done || x + half > width) continue;
    context.fillText(text, x, AXIS / 2 - 2);
    done = x + half + 10;
  }
};

// Bars of spans; what is closer together than pixels are is drawn once.
const drawSpans = (context, width, sorted, top, height, colour, label) => {
  const [low, high] = inRange(sorted, view.from, view.to);
  let done = -1;
  for (let i = low; i < high; i++) {
    const left = Math.max(xOf(sorted[i].start), gutter()), right = Math.min(xOf(sorted[i].end), width);
    if (right < gutter() || right <= done) continue;
    const bar = Math.max(right - left, 1.5);
    context.fillStyle = colour(sorted[i]);
    context.fillRect(left, top, bar, height);
    done = Math.max(left + bar, done);
    if (sorted[i].end === Infinity && right - left > 12) drawOpenEnd(context, width, top, height);
    if (label && bar > 34 && height >= 8) {
      context.fillStyle = palette["on-slice"];
      context.textAlign = "left";
      const text = label(sorted[i]);
      const room = Math.floor((bar - 8) / 6.2);
      context.fillText(text.length > room ? text.slice(0, Math.max(room - 1, 1)) + "…" : text, left + 4, top + height / 2 + 0.5);
    }
  }
};

const drawOpenEnd = (context, width, top, height) => {
  context.fillStyle = palette.card;
  for (let n = 0; n < 3; n++) context.fillRect(width - 4 - n * 5, top, 2, height);
};

// Records as marks: in each column of pixels one, in the colour of what matters most there.
const drawTicks = (context, width, lane, top, height) => {
  const key = (i) => records.at[lane.own[i]];
  let low = lowerBound(lane.own.length, key, view.from);
  for (let x = gutter(); x < width && low < lane.own.length; x++) {
    if (xOf(key(low)) > x + 1) x = Math.floor(xOf(key(low)));
    if (x >= width) return;
    let high = low + 1;
    if (high < lane.own.length && key(high) < atOf(x + 1)) high = lowerBound(lane.own.length, key, atOf(x + 1));
    const refused = lane.refused[high] - lane.refused[low], calls = lane.calls[high] - lane.calls[low];
    context.fillStyle = refused ? palette.refused : calls ? palette.call : palette.entry;
    context.fillRect(x, top, refused ? 2 : 1, height);
    low = high;
  }
};

const STATE_COLOURS = { off: "off", "on-pending": "off", suspended: "suspended", masked: "masked" };

const drawLane = (context, width, lane, top) => {
  const at = (row) => [top + ROWS[row][0] * laneHeight, Math.max(ROWS[row][1] * laneHeight, 2)];
  const colourOf = (handler) => (critical.has(handler.event) ? palette.critical : palette.normal);
  const ofState = (span) => palette[STATE_COLOURS[span.state] || "off"];
  drawSpans(context, width, lane.states, ...at("states"), ofState);
  for (const depth of [0, 1]) {
    drawSpans(context, width, lane.depths[depth], ...at(depth), colourOf, (handler) => eventName(handler.event));
  }
  drawSpans(context, width, lane.pending, ...at("pending"), () => palette.pending);
  drawTicks(context, width, lane, ...at("ticks"));
  context.fillStyle = palette.line;
  context.fillRect(0, top + laneHeight - 1, width, 1);
  context.fillStyle = palette.card;
  context.fillRect(0, top, gutter(), laneHeight - 1);
  context.fillStyle = palette.ink;
  context.textAlign = "right";
  const narrow = gutter() < 60;
  context.fillText(lane.vcpu < 0 || narrow ? lane.label : "vCPU " + lane.label, gutter() - 8, top + laneHeight / 2);
};

const drawSelected = (context, height) => {
  if (view.selected < 0) return;
  const at = records.at[view.selected], x = xOf(at);
  if (x < gutter() || x > frame.clientWidth) return;
  const blur = records.error[view.selected] * scale();
  context.fillStyle = palette.mark;
  if (blur > 1) {
    context.globalAlpha = 0.15;
    context.fillRect(x - blur, AXIS, 2 * blur, height);
    context.globalAlpha = 1;
  }
  context.fillRect(x - 0.5, AXIS - 6, 1.5, height);
};

// How many records there are when, on a canvas of its own: it stays while the view moves.
const density = make("canvas");

const drawDensity = () => {
  const width = overview.clientWidth, height = 30;
  if (!width) return;
  const context = prepared(density, width, height);
  const columns = new Float64Array(width), bad = new Uint8Array(width);
  const share = width / (domain.to - domain.from);
  for (let i = 0; i < records.length; i++) {
    const x = Math.min(Math.floor((records.at[i] - domain.from) * share), width - 1);
    columns[x]++;
    if (isRefused(i)) bad[x] = 1;
  }
  const most = columns.reduce((a, b) => Math.max(a, b), 1);
  for (let x = 0; x < width; x++) {
    if (!columns[x]) continue;
    const size = Math.max((Math.log(columns[x] + 1) / Math.log(most + 1)) * (height - 4), 2);
    context.fillStyle = bad[x] ? palette.refused : palette.call;
    context.fillRect(x, height - size, 1, size);
  }
};

const drawOverview = () => {
  const context = prepared(overview, overview.clientWidth, 30);
  if (density.width) context.drawImage(density, 0, 0, overview.clientWidth, 30);
  const share = overview.clientWidth / (domain.to - domain.from);
  const left = (view.from - domain.from) * share, length = Math.max((view.to - view.from) * share, 3);
  context.globalAlpha = 0.2;
  context.fillStyle = palette.accent;
  context.fillRect(left, 0, length, 30);
  context.globalAlpha = 1;
  context.strokeStyle = palette.accent;
  context.strokeRect(left + 0.5, 0.5, Math.max(length - 1, 2), 29);
};

const draw = () => {
  drawn = 0;
  byId("lanes").style.height = AXIS + lanes.length * laneHeight + "px";
  const width = frame.clientWidth, height = frame.clientHeight;
  const context = prepared(drawing, width, height);
  for (let n = 0; n < lanes.length; n++) {
    const top = AXIS + n * laneHeight - frame.scrollTop;
    if (top + laneHeight > 0 && top < height) drawLane(context, width, lanes[n], top);
  }
  drawAxis(context, width, height);
  drawSelected(context, height);
  drawOverview();
  byId("range").textContent = `${seconds(view.from)} to ${seconds(view.to)} s (${duration(view.to - view.from)})`;
};

const redraw = () => {
  if (!drawn) drawn = requestAnimationFrame(draw);
};

const redrawAll = () => {
  palette = colours();
  drawDensity();
  redraw();
};
