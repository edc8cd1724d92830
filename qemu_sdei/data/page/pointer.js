// Pointer, wheel and keys on the timeline.
const placeOf = (event) => {
  const box = drawing.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
};

const thingBelow = ({ x, y }) => {
  const place = (y - AXIS + frame.scrollTop) / laneHeight;
  const lane = lanes[Math.floor(place)];
  return y < AXIS || !lane || x < gutter() ? null : thingAt(lane, place % 1, atOf(x), 2 / scale());
};

const showTip = (place, thing) => {
  tip.hidden = !thing;
  if (!thing) return;
  tip.textContent = describe(thing);
  const left = Math.min(place.x + 14, frame.clientWidth - tip.offsetWidth - 6);
  const above = place.y + 16 + tip.offsetHeight > frame.clientHeight && place.y > tip.offsetHeight;
  tip.style.left = Math.max(left, 2) + "px";
  tip.style.top = frame.scrollTop + (above ? place.y - tip.offsetHeight - 8 : place.y + 16) + "px";
};

// The record with which a thing begins.
const recordOf = (thing) => {
  if (thing.kind === "record") return thing.i;
  if (thing.kind === "handler") return placeOfNumber(thing.n);
  return -1;
};

const startPointer = (select) => {
  const down = new Map();
  let moved = false;
  drawing.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    drawing.setPointerCapture(event.pointerId);
    down.set(event.pointerId, placeOf(event));
    moved = moved && down.size > 1;
  });
  drawing.addEventListener("pointermove", (event) => {
    const place = placeOf(event), before = down.get(event.pointerId);
    if (!before) {
      showTip(place, thingBelow(place));
      return;
    }
    if (!moved && Math.abs(place.x - before.x) < 3) return;
    moved = true;
    tip.hidden = true;
    drawing.classList.add("moving");
    const other = [...down].find(([id]) => id !== event.pointerId);
    if (other) {
      const apart = Math.abs(before.x - other[1].x), now = Math.abs(place.x - other[1].x);
      if (apart > 4 && now > 4) zoom(apart / now, atOf((place.x + other[1].x) / 2));
    } else {
      const shift = (before.x - place.x) / scale();
      show(view.from + shift, view.to + shift);
    }
    down.set(event.pointerId, place);
  });
  const up = (event) => {
    const place = placeOf(event);
    if (down.delete(event.pointerId) && event.type === "pointerup" && !moved) {
      const thing = thingBelow(place);
      showTip(place, thing);
      if (thing && recordOf(thing) >= 0) select(recordOf(thing));
    }
    if (!down.size) moved = false;
    drawing.classList.remove("moving");
  };
  drawing.addEventListener("pointerup", up);
  drawing.addEventListener("pointercancel", up);
  drawing.addEventListener("pointerleave", () => (tip.hidden = true));
  drawing.addEventListener("dblclick", (event) => zoom(event.shiftKey ? 3 : 1 / 3, atOf(placeOf(event).x)));
  // Without Ctrl the wheel is the page's, but for the way that the page does not go.
  frame.addEventListener("wheel", (event) => {
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      zoom(Math.exp(Math.max(Math.min(event.deltaY, 100), -100) / 200), atOf(placeOf(event).x));
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      move((event.deltaX || event.deltaY) / frame.clientWidth);
    }
  }, { passive: false });
  frame.addEventListener("scroll", redraw);
};

const startOverview = () => {
  const go = (event) => {
    const box = overview.getBoundingClientRect();
    const at = domain.from + ((event.clientX - box.left) / box.width) * (domain.to - domain.from);
    show(at - (view.to - view.from) / 2, at + (view.to - view.from) / 2);
  };
  overview.addEventListener("pointerdown", (event) => {
    overview.setPointerCapture(event.pointerId);
    go(event);
  });
  overview.addEventListener("pointermove", (event) => event.buttons && go(event));
};

// `step` goes to the next or previous record of the list.
const startKeys = (step) => {
  const actions = {
    ArrowLeft: () => move(-0.15),
    ArrowRight: () => move(0.15),
    ArrowUp: () => frame.scrollBy(0, -laneHeight),
    ArrowDown: () => frame.scrollBy(0, laneHeight),
    "+": () => zoom(0.6),
    "=": () => zoom(0.6),
    "-": () => zoom(1 / 0.6),
    0: () => show(domain.from, domain.to),
    Home: () => show(domain.from, domain.from + view.to - view.from),
    End: () => show(domain.to - view.to + view.from, domain.to),
    n: () => step(1),
    p: () => step(-1),
  };
  frame.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(actions, event.key)) return;
    event.preventDefault();
    actions[event.key]();
  });
  byId("zoom-in").addEventListener("click", actions["+"]);
  byId("zoom-out").addEventListener("click", actions["-"]);
  byId("zoom-all").addEventListener("click", actions[0]);
  byId("next").addEventListener("click", actions.n);
  byId("previous").addEventListener("click", actions.p);
};
