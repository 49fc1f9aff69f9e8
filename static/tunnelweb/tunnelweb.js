// What the pages do beside htmx: the live socket, the dialog, toasts and the countdown. Events named "tw:…" are raised
// by forwards/htmx.py.
(() => {
  "use strict";

  const byId = (id) => document.getElementById(id);
  const RECONNECT_MS = () => 1000 + Math.random() * 2000;

  // The list: fetched anew under the page's own address, which carries filter, order and page.

  let refreshing = 0;
  let meanwhile = null; // while a list is on its way: what the socket said since it was asked for
  const refresh = (delay = 100) => {
    if (refreshing) return;
    refreshing = setTimeout(() => {
      refreshing = 0;
      if (!byId("list")) return;
      if (meanwhile) return refresh(); // one list is on its way already, and may be older than what asked for this one
      const url = location.pathname + location.search;
      htmx.ajax("GET", url, { source: "#list", target: "#list", swap: "outerHTML" });
    }, delay);
  };
  document.addEventListener("tw:refresh", () => refresh(0));

  // The filter hides with nothing to filter, and appears with the first row.
  htmx.onLoad((loaded) => {
    const filter = byId("filter");
    if (filter && loaded.id === "list") filter.hidden = filter.hidden && !loaded.querySelector("table");
  });

  // The live socket. htmx's extension opens it; the swaps are ours, because it knows neither <template> nor rows that
  // are not on this page, and the reconnecting is ours for close codes it takes for an end.

  const swapIn = (element, again) => {
    const target = byId(element.id);
    if (!target) return;
    element.removeAttribute("hx-swap-oob");
    if (element.dataset.refresh) {
      const list = byId("list");
      if (!again && list && list.dataset.list === element.dataset.refresh) refresh();
    } else if (element.childElementCount) {
      htmx.swap(target, element.outerHTML, { swapStyle: "outerHTML" });
    } else {
      target.replaceWith(element);
    }
  };
  const swapAll = (fragment, again) => {
    for (const element of [...fragment.children]) {
      if (element.localName === "template") swapAll(element.content, again);
      else if (element.id) swapIn(element, again);
    }
  };
  const draw = (message, again = false) => {
    const template = document.createElement("template");
    template.innerHTML = message;
    swapAll(template.content, again);
  };

  // A row that is replaced between press and release gets no click, so nothing is drawn while a button is held; but not
  // for long, as a menu may swallow the release.
  const LONGEST_PRESS = 1000;
  let held = false;
  let pressed = 0;
  let waiting = [];
  const hold = () => {
    held = true;
    clearTimeout(pressed);
    pressed = setTimeout(release, LONGEST_PRESS);
  };
  const release = () => setTimeout(() => {
    clearTimeout(pressed);
    held = false;
    const messages = waiting;
    waiting = [];
    messages.forEach((message) => draw(message));
  });
  addEventListener("pointerdown", (event) => { if (event.button === 0) hold(); }, true);
  addEventListener("keydown", (event) => { if (event.key === " ") hold(); }, true);
  for (const end of ["pointerup", "pointercancel", "keyup", "blur", "dragend"]) addEventListener(end, release, true);

  // A list on its way may be older than a row drawn meanwhile: such rows are drawn once more on top of it.
  const isList = (event) => event.detail.target && event.detail.target.id === "list";
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (isList(event)) meanwhile = [];
  });
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (!isList(event) || !held || event.detail.requestConfig.elt.id !== "list") return;
    event.detail.shouldSwap = false;
    refresh(300);
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    if (!isList(event) || !meanwhile) return;
    const messages = meanwhile;
    meanwhile = null;
    messages.forEach((message) => draw(message, true));
  });

  document.addEventListener("htmx:wsBeforeMessage", (event) => {
    event.preventDefault();
    const { message } = event.detail;
    if (meanwhile) meanwhile.push(message);
    if (held) waiting.push(message);
    else draw(message);
    const live = document.querySelector("#list[data-live-filter]");
    if (live && message.includes("data-state=")) refresh(500);
  });

  const SIGNED_OUT = 4401;
  const RETRIED_BY_EXTENSION = [1006, 1011, 1012, 1013];
  const banner = (shown) => {
    byId("live-banner").hidden = !shown;
  };
  let leaving = false;
  addEventListener("pagehide", () => { leaving = true; });
  addEventListener("pageshow", () => { leaving = false; });
  htmx.config.wsReconnectDelay = RECONNECT_MS;
  document.addEventListener("htmx:wsOpen", () => {
    banner(false); // the server has the list fetched anew on every new socket
  });
  document.addEventListener("htmx:wsError", () => {
    if (!leaving) banner(true);
  });
  document.addEventListener("htmx:wsClose", (event) => {
    if (event.detail.event.code === SIGNED_OUT) return location.reload();
    if (!leaving) banner(true);
    if (RETRIED_BY_EXTENSION.includes(event.detail.event.code)) return;
    setTimeout(() => event.detail.socketWrapper.reconnect(), RECONNECT_MS());
  });

  // A machine that slept may hold a socket that is dead without knowing it: look once when somebody looks again.
  let hiddenSince = 0;
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) hiddenSince = Date.now();
    else if (hiddenSince && Date.now() - hiddenSince > 30000) refresh();
  });

  // The dialog

  const dialog = byId("dialog");
  const home = () => document.querySelector("[data-home]");
  const closeDialog = () => {
    if (dialog.open) dialog.close();
    else if (home()) location.assign(home().dataset.home);
  };
  document.addEventListener("tw:close-dialog", closeDialog);
  dialog.addEventListener("close", () => dialog.replaceChildren());
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-close-dialog]")) closeDialog();
  });

  // Secrets are never in HTML, so a form that comes back with errors gets what was typed from the form it replaces.
  const SECRETS = "input[type=password], textarea[name=key_text]";
  let typed = new Map();
  const isForm = (target) => target.matches("[data-dialog]");
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { target } = event.detail;
    if (!isForm(target)) return;
    typed = new Map();
    for (const field of target.querySelectorAll(SECRETS)) typed.set(field.name, field.value);
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    const target = event.detail.target;
    if (!target || !isForm(target)) return;
    for (const field of target.querySelectorAll(SECRETS)) {
      if (typed.get(field.name)) field.value = typed.get(field.name);
    }
    typed = new Map();
    if (target === dialog && !dialog.open) dialog.showModal();
    showOnly(target);
    const first = target.querySelector(".is-invalid") || target.querySelector("[autofocus]")
      || target.querySelector("input:not([type=hidden]), select, textarea");
    if (first) first.focus();
  });

  // Fields of the chosen type or way to sign in; data-only names the choices an element belongs to.
  const chosen = (form) => form.querySelector("[name=kind], [name=auth]");
  const showOnly = (root) => {
    for (const form of root.querySelectorAll("[data-kind-form], [data-auth-form]")) {
      for (const part of form.querySelectorAll("[data-only]")) {
        part.hidden = !part.dataset.only.split(" ").includes(chosen(form).value);
      }
    }
  };
  document.addEventListener("change", (event) => {
    if (event.target.matches("[name=kind], [name=auth]") && event.target.closest(".tw-form")) showOnly(document);
  });
  showOnly(document);

  document.addEventListener("click", (event) => {
    const preset = event.target.closest("[data-preset]");
    if (!preset) return;
    const form = preset.closest("form");
    const set = (name, value) => { form.elements[name].value = value; };
    const names = [...form.querySelectorAll("[data-preset]")].map((each) => each.dataset.name);
    const name = form.elements.name.value.trim();
    if (!name || names.includes(name)) set("name", preset.dataset.name);
    set("kind", "local");
    set("local_host", "127.0.0.1");
    set("local_port", preset.dataset.localPort);
    set("remote_host", "127.0.0.1");
    set("remote_port", preset.dataset.remotePort);
    showOnly(document);
    (form.elements.server.value ? form.querySelector("[type=submit]") : form.elements.server).focus();
  });

  // Toasts

  const toasts = byId("toasts");
  const toast = (text, level = "success") => {
    const box = document.createElement("div");
    box.className = `tw-toast tw-toast-${level === "danger" ? "danger" : "success"}`;
    const words = document.createElement("span");
    words.textContent = text;
    const close = document.createElement("button");
    close.type = "button";
    close.className = "btn-close";
    close.setAttribute("aria-label", toasts.dataset.close);
    close.addEventListener("click", () => box.remove());
    box.append(words, close);
    toasts.append(box);
    setTimeout(() => box.remove(), level === "danger" ? 15000 : 5000);
  };
  document.addEventListener("tw:toast", (event) => toast(event.detail.text, event.detail.level));
  document.addEventListener("htmx:responseError", (event) => {
    const status = event.detail.xhr.status;
    if (status === 404) refresh();
    const text = { 403: toasts.dataset.forbidden, 404: toasts.dataset.gone }[status] || toasts.dataset.failed;
    toast(text, "danger");
  });
  document.addEventListener("htmx:sendError", () => toast(toasts.dataset.unreachable, "danger"));

  // Countdowns to the next try: seconds from when the row was drawn, so that two clocks need not agree.

  const deadlines = new WeakMap();
  const tick = () => {
    for (const element of document.querySelectorAll("[data-retry-in]")) {
      if (!deadlines.has(element)) deadlines.set(element, Date.now() + Number(element.dataset.retryIn) * 1000);
      element.textContent = `${Math.max(0, Math.round((deadlines.get(element) - Date.now()) / 1000))} s`;
    }
  };
  tick();
  setInterval(tick, 1000);

  // The user menu closes like a menu.
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.tw-menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });
  document.addEventListener("keydown", (event) => {
    const menu = event.key === "Escape" && document.querySelector("details.tw-menu[open]");
    if (menu) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });
})();
