// The trace's data, which is inert JSON, as typed arrays; and how its values are written.
const byId = (id) => document.getElementById(id);
const trace = JSON.parse(byId("trace").textContent);

// Of a column of differences the sums.
const summed = (differences) => {
  const values = new Float64Array(differences.length);
  let sum = 0;
  for (let i = 0; i < differences.length; i++) values[i] = sum += differences[i];
  return values;
};

const records = {
  length: trace.records.n.length,
  n: summed(trace.records.n),
  at: summed(trace.records.at),
  error: trace.records.error,
  vcpu: Int16Array.from(trace.records.vcpu),
  type: Uint16Array.from(trace.records.type),
  pc: Int32Array.from(trace.records.pc),
  next: Int32Array.from(trace.records.next),
  counter: trace.records.counter,
  detail: Uint32Array.from(trace.records.detail),
};
const LINE = 0, EVENT = 1, REFUSED = 2, FIELDS = 3;  // places in a detail
const detailOf = (i) => trace.details[records.detail[i]];
const typeOf = (i) => trace.types[records.type[i]];
const isRefused = (i) => detailOf(i)[REFUSED] === 1;

const hex = (number) => "0x" + number.toString(16);
const eventName = (event) => hex(event) + (trace.events[event] ? " " + trace.events[event] : "");

// A time since the trace's first record, in seconds; `digits` after the point.
const seconds = (ns, digits = 6) => (ns / 1e9).toFixed(digits);

// A duration as people say it.
const duration = (ns) => {
  for (const [size, unit] of [[1e9, "s"], [1e6, "ms"], [1e3, "µs"]]) {
    if (Math.abs(ns) >= size) return (ns / size).toPrecision(Math.abs(ns) >= size * 1000 ? 4 : 3) + " " + unit;
  }
  return Math.round(ns) + " ns";
};

const wallClock = (ns) => {
  const date = new Date(trace.wall_ms === null ? NaN : trace.wall_ms + ns / 1e6);
  return Number.isNaN(date.getTime()) ? null : date.toISOString();
};

// The first place in the sorted `values` (or of what `key` says of them) that is not below `value`.
const lowerBound = (length, key, value) => {
  let low = 0, high = length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (key(middle) < value) low = middle + 1;
    else high = middle;
  }
  return low;
};

// The one way by which this script makes elements: text is text, never HTML.
const make = (name, className, text) => {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};
