// The timeline's model: its lanes, which part of the time is in view, and what is where.
const AXIS = 24;  // pixels above the lanes

// Spans that do not overlap, such as handlers of one depth, in their order, for quick looking up.
const spans = (list) => {
  const sorted = list.map((span) => ({ ...span, start: span.start ?? -Infinity, end: span.end ?? Infinity }));
  sorted.sort((a, b) => a.start - b.start);
  // Where they overlap all the same, none that reaches into a view may be missed.
  let latest = -Infinity;
  for (const span of sorted) span.latest = latest = Math.max(latest, span.end);
  return sorted;
};

const inRange = (sorted, from, to) => [
  lowerBound(sorted.length, (i) => sorted[i].latest, from),
  lowerBound(sorted.length, (i) => sorted[i].start, to),
];

const critical = new Set(trace.critical);

const makeLanes = () => {
  const indices = new Map();
  for (let vcpu = 0; vcpu < trace.vcpus; vcpu++) indices.set(vcpu, []);
  for (let i = 0; i < records.length; i++) {
    if (!indices.has(records.vcpu[i])) indices.set(records.vcpu[i], []);
    indices.get(records.vcpu[i]).push(i);
  }
  const found = new Map(trace.lanes.map((lane) => [lane.vcpu ?? -1, lane]));
  for (const [vcpu, lane] of found) {
    const lasts = lane.handlers.length + lane.pending.length + lane.states.length;
    if (lasts && !indices.has(vcpu)) indices.set(vcpu, []);
  }
  const order = [...indices.keys()].sort((a, b) => (a < 0) - (b < 0) || a - b);
  return order.map((vcpu) => {
    const own = indices.get(vcpu).sort((a, b) => records.at[a] - records.at[b] || a - b);
    const lane = found.get(vcpu) || { handlers: [], pending: [], states: [] };
    const handlers = lane.handlers.map(([start, end, event, depth, asked, n, how]) => (
      { start, end, event, depth, asked, n, how, kind: "handler" }));
    // How many of the records up to each are refusals, and how many are calls.
    const refused = new Uint32Array(own.length + 1), calls = new Uint32Array(own.length + 1);
    own.forEach((i, at) => {
      refused[at + 1] = refused[at] + (isRefused(i) ? 1 : 0);
      calls[at + 1] = calls[at] + (typeOf(i) === "call" ? 1 : 0);
    });
    return {
      vcpu, own, refused, calls,
      label: vcpu < 0 ? "guest" : String(vcpu),
      depths: [0, 1].map((depth) => spans(handlers.filter((handler) => Math.min(handler.depth, 1) === depth))),
      pending: spans(lane.pending.map(([start, end, event]) => ({ start, end, event, kind: "pending" }))),
      states: spans(lane.states.map(([start, end, state]) => ({ start, end, state, kind: "state" }))),
    };
  });
};

const lanes = makeLanes();
const laneHeight = lanes.length <= 8 ? 58 : lanes.length <= 20 ? 46 : 34;

const domain = (() => {
  let from = Infinity, to = -Infinity;
  for (const at of records.at) {
    if (at < from) from = at;
    if (at > to) to = at;
  }
  if (from > to) from = to = 0;
  const margin = Math.max((to - from) * 0.01, 500);
  return { from: from - margin, to: to + margin };
})();

const view = { from: domain.from, to: domain.to, selected: -1 };
const viewListeners = [];

// Show the time from `from` to `to`, or what is nearest to that: never less than 100 ns, nor anything outside.
const show = (from, to) => {
  const length = Math.min(Math.max(to - from, 100), domain.to - domain.from);
  const middle = (from + to) / 2;
  view.from = Math.min(Math.max(middle - length / 2, domain.from), domain.to - length);
  view.to = view.from + length;
  viewListeners.forEach((listener) => listener());
};

const isInView = (i) => records.at[i] >= view.from && records.at[i] <= view.to;

// What somebody looks at who says nothing else: the selected record, or the middle.
const focus = () =>
  view.selected >= 0 && isInView(view.selected) ? records.at[view.selected] : (view.from + view.to) / 2;

const zoom = (factor, around = focus()) =>
  show(around - (around - view.from) * factor, around + (view.to - around) * factor);

const move = (share) => show(view.from + (view.to - view.from) * share, view.to + (view.to - view.from) * share);

// Where the rows of a lane are, as shares of its height: top and height.
const ROWS = { states: [0.06, 0.09], 0: [0.19, 0.25], 1: [0.45, 0.18], pending: [0.66, 0.07], ticks: [0.77, 0.18] };

// What is in lane `lane` at `y` (a share of its height) and time `at`, where `near` ns count as there.
const thingAt = (lane, y, at, near) => {
  const isIn = (row) => y >= ROWS[row][0] - 0.02 && y <= ROWS[row][0] + ROWS[row][1] + 0.02;
  const sets = [["states", lane.states], [0, lane.depths[0]], [1, lane.depths[1]], ["pending", lane.pending]];
  for (const [row, sorted] of sets) {
    if (!isIn(row)) continue;
    const [low, high] = inRange(sorted, at - near, at + near);
    for (let i = high - 1; i >= low; i--) {
      if (sorted[i].start <= at + near && sorted[i].end >= at - near) return sorted[i];
    }
  }
  const first = lowerBound(lane.own.length, (i) => records.at[lane.own[i]], at);
  let nearest = -1;
  for (const place of [first - 1, first]) {
    if (place < 0 || place >= lane.own.length) continue;
    const i = lane.own[place], away = Math.abs(records.at[i] - at);
    if (away <= near * 3 && (nearest < 0 || away < Math.abs(records.at[nearest] - at))) nearest = i;
  }
  return nearest < 0 ? null : { kind: "record", i: nearest };
};

const describe = (thing) => {
  if (thing.kind === "record") {
    return `${typeOf(thing.i)} at ${seconds(records.at[thing.i])} s\n${detailOf(thing.i)[LINE]}`;
  }
  const from = thing.start === -Infinity ? "before the trace" : seconds(thing.start) + " s";
  const to = thing.end === Infinity ? "has not ended" : "for " + duration(thing.end - thing.start);
  const lasts = thing.start === -Infinity ? `from ${from}` : `from ${from}, ${to}`;
  if (thing.kind === "state") return `${thing.state}\n${lasts}`;
  if (thing.kind === "pending") return `event ${eventName(thing.event)} is pending\n${lasts}`;
  const asked = thing.asked === null ? "" : `\npending for ${duration(thing.start - thing.asked)} before`;
  const how = thing.how && thing.how !== "complete" ? `\nended by ${thing.how}` : "";
  return `handler of event ${eventName(thing.event)}\n${lasts}${asked}${how}`;
};
