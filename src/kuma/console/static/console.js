// Keeps an open page current: told by the control plane that something has changed, it asks for the same page again and
// takes over the parts that are marked for it. Everything works without it, too: then by loading the page again.
"use strict";

(() => {
  const stream = document.body.dataset.live;
  const state = document.getElementById("live-state");
  if (!stream || !state || !window.EventSource) return;
  let source = null, busy = false, again = false;

  const say = (text) => { if (state.textContent !== text) state.textContent = text; };

  function takeOver(part, fresh) {
    if (part.innerHTML === fresh.innerHTML) return;
    const focused = part.contains(document.activeElement) ? document.activeElement : null;
    const place = focused && [focused.id, focused.getAttribute("href")];
    const scrolled = [...part.querySelectorAll(".scroll")].map((one) => [one.scrollLeft, one.scrollTop]);
    const open = new Set([...part.querySelectorAll("details[open][id]")].map((one) => one.id));
    part.replaceChildren(...fresh.childNodes);
    part.querySelectorAll(".scroll").forEach((one, index) => {
      if (scrolled[index]) [one.scrollLeft, one.scrollTop] = scrolled[index];
    });
    part.querySelectorAll("details[id]").forEach((one) => { one.open = one.open || open.has(one.id); });
    if (place) {
      const same = [...part.querySelectorAll("a, button, input, select, [tabindex]")].find((one) =>
        place[0] ? one.id === place[0] : place[1] && one.getAttribute("href") === place[1]);
      if (same) same.focus({ preventScroll: true });
    }
  }

  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    const began = performance.now();
    try {
      const answer = await fetch(location.href, { credentials: "same-origin", redirect: "manual" });
      if (answer.type === "opaqueredirect" || [401, 403].includes(answer.status)) { location.reload(); return; }
      if (!answer.ok) { say("this page cannot be brought up to date; load it again"); return; }
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of document.querySelectorAll("[data-part]")) {
        const found = fresh.getElementById(part.id);
        if (found) takeOver(part, found);
      }
      say("live");
    } catch { say("not connected; trying again"); } finally {
      // What is expensive is asked for less often: an open page waits four times as long as it was waited for.
      setTimeout(() => {
        busy = false;
        if (again) { again = false; refresh(); }
      }, Math.min(4 * (performance.now() - began), 10000));
    }
  }

  function follow() {
    if (source || document.hidden) return;
    source = new EventSource(stream);
    source.onopen = () => say("live");
    source.onmessage = refresh;
    source.onerror = () => {
      if (source.readyState !== EventSource.CLOSED) return;
      source = null;
      refresh();
      setTimeout(follow, 5000);
    };
  }

  // A page that nobody looks at holds no connection: browsers have six for one server.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) { follow(); refresh(); } else if (source) { source.close(); source = null; }
  });
  window.addEventListener("pagehide", () => { if (source) { source.close(); source = null; } });
  window.addEventListener("pageshow", follow);
  follow();
})();
