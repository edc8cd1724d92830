// The list of records: of any length only the rows that are in view are there.
const list = byId("list"), rows = byId("rows");
const places = new Uint32Array(records.length);  // of each row of the list the record
let shownCount = 0, current = -1;  // rows; the row that is selected, or -1

const placeOfNumber = (n) => {
  const i = lowerBound(records.length, (place) => records.n[place], n);
  return i < records.length && records.n[i] === n ? i : -1;
};

// ---- filters

const haystacks = trace.details.map((detail) => [detail[LINE], ...detail.slice(FIELDS)].join(" ").toLowerCase());
const hidden = new Set();  // types that are switched off

const wanted = () => {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const vcpu = byId("of-vcpu").value, event = byId("of-event").value;
  const inDetails = words.map((word) => Uint8Array.from(haystacks, (text) => (text.includes(word) ? 1 : 0)));
  const inTypes = words.map((word) => trace.types.map((type) => type.toLowerCase().includes(word)));
  const inPcs = words.map((word) => trace.pcs.map((pc) => pc.toLowerCase().includes(word)));
  const types = trace.types.map((type) => !hidden.has(type));
  const refused = byId("only-refused").checked, visible = byId("only-visible").checked;
  return (i) => {
    if (!types[records.type[i]]) return false;
    if (vcpu !== "" && records.vcpu[i] !== Number(vcpu)) return false;
    if (event !== "" && detailOf(i)[EVENT] !== Number(event)) return false;
    if (refused && !isRefused(i)) return false;
    if (visible && !isInView(i)) return false;
    return words.every((_, at) => inDetails[at][records.detail[i]] || inTypes[at][records.type[i]]
      || (records.pc[i] >= 0 && inPcs[at][records.pc[i]]));
  };
};

const filter = () => {
  const matches = wanted();
  const selected = view.selected;
  shownCount = 0;
  current = -1;
  for (let i = 0; i < records.length; i++) {
    if (!matches(i)) continue;
    if (i === selected) current = shownCount;
    places[shownCount++] = i;
  }
  byId("matches").textContent = shownCount === records.length
    ? `${records.length} records` : `${shownCount} of ${records.length} records`;
  rows.style.height = shownCount * rowHeight() + "px";
  if (current >= 0) scrollTo(current);
  drawRows();
};

// ---- rows

const narrow = matchMedia("(max-width: 640px)");
const rowHeight = () => (narrow.matches ? 42 : 22);
let rowsDrawn = 0;

const makeRow = (place) => {
  const i = places[place];
  const row = make("div", "row" + (isRefused(i) ? " refused" : "") + (place === current ? " selected" : ""));
  row.id = "row-" + place;
  row.dataset.place = place;
  row.setAttribute("role", "option");
  row.setAttribute("aria-selected", place === current);
  row.setAttribute("aria-posinset", place + 1);
  row.setAttribute("aria-setsize", shownCount);
  row.style.top = place * rowHeight() + "px";
  row.append(
    make("span", "n", records.n[i]),
    make("span", "at", seconds(records.at[i])),
    make("span", "vcpu", records.vcpu[i] < 0 ? "–" : records.vcpu[i]),
    make("span", "type", typeOf(i)),
    make("span", "what", detailOf(i)[LINE]),
  );
  return row;
};

const drawRows = () => {
  rowsDrawn = 0;
  const height = rowHeight();
  const first = Math.max(Math.floor(list.scrollTop / height) - 4, 0);
  const end = Math.min(Math.ceil((list.scrollTop + list.clientHeight) / height) + 4, shownCount);
  const made = [];
  for (let place = first; place < end; place++) made.push(makeRow(place));
  if (!shownCount) made.push(make("p", "nothing", "No record is like that."));
  rows.replaceChildren(...made);
  if (current >= first && current < end) list.setAttribute("aria-activedescendant", "row-" + current);
  else list.removeAttribute("aria-activedescendant");
};

const scrollTo = (place) => {
  const height = rowHeight(), top = place * height;
  if (top < list.scrollTop || top + height > list.scrollTop + list.clientHeight) {
    list.scrollTop = top - (list.clientHeight - height) / 2;
  }
};

// ---- the selected record

const drawDetail = () => {
  const i = view.selected;
  if (i < 0) {
    byId("detail").replaceChildren(make("p", "note", "Select a record to see all of it."));
    return;
  }
  const pairs = [["record", `${records.n[i]}, ${typeOf(i)}`]];
  pairs.push(["time", `${seconds(records.at[i], 9)} s ± ${duration(records.error[i])}`]);
  if (wallClock(records.at[i])) pairs.push(["host's clock", wallClock(records.at[i])]);
  if (records.counter[i] !== null) pairs.push(["guest's counter", String(records.counter[i])]);
  if (records.vcpu[i] >= 0) pairs.push(["vCPU", String(records.vcpu[i])]);
  if (records.pc[i] >= 0) pairs.push(["PC", trace.pcs[records.pc[i]]]);
  if (records.next[i] >= 0 && records.next[i] !== records.pc[i]) pairs.push(["goes on at", trace.pcs[records.next[i]]]);
  const detail = detailOf(i);
  for (let at = FIELDS; at < detail.length; at += 2) pairs.push([detail[at], detail[at + 1]]);
  const parts = make("dl");
  for (const [name, value] of pairs) parts.append(make("dt", "", name), make("dd", "", value));
  byId("detail").replaceChildren(parts);
};

// Select record `i`; one that the filters hide is in the timeline and below the list all the same.
const select = (i) => {
  view.selected = i;
  current = lowerBound(shownCount, (place) => places[place], i);
  if (current >= shownCount || places[current] !== i) current = -1;
  else scrollTo(current);
  drawRows();
  drawDetail();
  if (!isInView(i)) show(records.at[i] - (view.to - view.from) / 2, records.at[i] + (view.to - view.from) / 2);
  redraw();
};

const step = (by) => {
  if (!shownCount) return;
  // Where the selected record would be if it were in the list: the next one is there already.
  const next = lowerBound(shownCount, (place) => places[place], view.selected);
  const to = current >= 0 ? current + by : next + (by > 0 ? by - 1 : by);
  select(places[Math.min(Math.max(to, 0), shownCount - 1)]);
};

// Show in the timeline what is around the selected record: some records in front of it, and behind.
const showAround = () => {
  const i = view.selected;
  if (i < 0) return;
  const here = records.at[i];
  const before = records.at[Math.max(i - 10, 0)], after = records.at[Math.min(i + 10, records.length - 1)];
  const reach = Math.max(here - before, after - here, 5e3) * 1.2;
  show(here - reach, here + reach);
};

// ---- controls

const addOptions = (id, values, text) => {
  for (const value of values) {
    const option = make("option", "", text(value));
    option.value = value;
    byId(id).append(option);
  }
};

const startFilters = () => {
  addOptions("of-vcpu", [...new Set(records.vcpu)].filter((vcpu) => vcpu >= 0).sort((a, b) => a - b), String);
  const events = new Set(trace.details.map((detail) => detail[EVENT]).filter((event) => event >= 0));
  addOptions("of-event", [...events].sort((a, b) => a - b).slice(0, 500), eventName);
  const counts = new Map();
  for (const type of records.type) counts.set(type, (counts.get(type) || 0) + 1);
  for (const [number, count] of [...counts].sort((a, b) => b[1] - a[1]).slice(0, 40)) {
    const type = trace.types[number];
    const button = make("button", "", `${type} ${count}`);
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    button.addEventListener("click", () => {
      if (!hidden.delete(type)) hidden.add(type);
      button.setAttribute("aria-pressed", String(!hidden.has(type)));
      filter();
    });
    byId("types").append(button);
  }
  let waiting = 0;
  const soon = () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 120);
  };
  byId("search").addEventListener("input", soon);
  for (const id of ["of-vcpu", "of-event", "only-refused", "only-visible"]) byId(id).addEventListener("change", filter);
  viewListeners.push(() => byId("only-visible").checked && soon());
};

const startList = () => {
  list.addEventListener("scroll", () => {
    if (!rowsDrawn) rowsDrawn = requestAnimationFrame(drawRows);
  });
  rows.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (row) select(places[Number(row.dataset.place)]);
  });
  const page = () => Math.max(Math.floor(list.clientHeight / rowHeight()) - 1, 1);
  const keys = {
    ArrowDown: () => step(1), ArrowUp: () => step(-1), PageDown: () => step(page()), PageUp: () => step(-page()),
    Home: () => step(-records.length), End: () => step(records.length),
    Enter: showAround,
  };
  list.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
  });
  narrow.addEventListener("change", filter);
  startFilters();
  filter();
  drawDetail();
};
