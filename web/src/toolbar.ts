// The bar of a screen: keys a browser or a desktop would swallow, text, view.

import * as base from "./bar.js";
import type { Screen } from "./screen.js";
import { strokesOf, type } from "./typing.js";
import { button, element } from "./view.js";

const CONTROL = 0xffe3;
const ALT = 0xffe9;

/** Keys by the `data-key` of their button: keysym and the code of the physical key. */
const KEYS: Readonly<Record<string, [number, string]>> = {
  ctrl: [CONTROL, "ControlLeft"],
  alt: [ALT, "AltLeft"],
  super: [0xffeb, "MetaLeft"],
  esc: [0xff1b, "Escape"],
  tab: [0xff09, "Tab"],
  ...Object.fromEntries(
    Array.from({ length: 12 }, (_, index) => [`f${index + 1}`, [0xffbe + index, `F${index + 1}`]]),
  ),
};

const bar = element("bar", HTMLElement);
const panels = [
  { toggle: button("keys"), panel: element("keys-panel", HTMLElement) },
  { toggle: button("text"), panel: element("text-panel", HTMLElement) },
];
const scale = button("scale");
const text = element("text-out", HTMLTextAreaElement);
const received = element("text-in", HTMLTextAreaElement);
const typeButton = button("type");
const note = element("text-note", HTMLElement);
const clipboard = [button("paste"), element("clipboard", HTMLElement)];

let screen: Screen | undefined;
let typing: AbortController | undefined;

/** Gives the bar a console to work on, or takes it away. */
export function attach(console: Screen | undefined, viewOnly: boolean): void {
  typing?.abort();
  screen = console;
  document.documentElement.classList.toggle("view-only", viewOnly);
  panels.forEach(({ toggle }) => open(toggle, false));
  heldKeys().forEach((key) => key.setAttribute("aria-pressed", "false"));
  note.textContent = "";
  if (console) {
    clipboard.forEach((part) => (part.hidden = !console.clipboardPasteFrom));
    scale.setAttribute("aria-pressed", String(console.scaleViewport));
    base.pin(3000);
  } else {
    received.value = "";
  }
}

/** Text the console put on its clipboard. */
export function receive(incoming: string): void {
  received.value = incoming;
}

/** Wires the bar up, once. */
export function prepare(leave: () => void): void {
  panels.forEach(({ toggle }) => toggle.addEventListener("click", () => open(toggle, !isOpen(toggle))));
  button("ctrl-alt-del").addEventListener("click", () => use((console) => console.sendCtrlAltDel()));
  keyButtons().forEach((key) => key.addEventListener("click", () => press(key)));
  prepareText();
  prepareView();
  base.prepare({ leave, back, summoned });
}

function prepareText(): void {
  typeButton.addEventListener("click", () => void toggleTyping());
  button("paste").addEventListener("click", () => {
    screen?.clipboardPasteFrom?.(text.value);
    note.textContent = "Sent. Paste it inside the console.";
  });
}

function prepareView(): void {
  scale.addEventListener("click", () =>
    use((console) => {
      console.scaleViewport = !console.scaleViewport;
      scale.setAttribute("aria-pressed", String(console.scaleViewport));
    }),
  );
}

/** Does something to the console and gives it the keyboard back. */
function use(action: (console: Screen) => void): void {
  if (screen) {
    action(screen);
    back();
  }
}

function back(): void {
  panels.forEach(({ toggle }) => open(toggle, false));
  screen?.focus({ preventScroll: true });
}

function isOpen(toggle: HTMLElement): boolean {
  return toggle.getAttribute("aria-expanded") === "true";
}

function open(toggle: HTMLElement, wanted: boolean): void {
  for (const each of panels) {
    const visible = wanted && each.toggle === toggle;
    each.toggle.setAttribute("aria-expanded", String(visible));
    each.panel.hidden = !visible;
    if (visible) {
      each.panel.querySelector<HTMLElement>("button, textarea")?.focus();
    }
  }
}

const keyButtons = (): HTMLElement[] => [...bar.querySelectorAll<HTMLElement>("[data-key]")];
const heldKeys = (): HTMLElement[] => keyButtons().filter((key) => key.hasAttribute("aria-pressed"));

/** A modifier stays down until its button is used again; other keys go down and up. */
function press(pressed: HTMLElement): void {
  const [keysym, code] = KEYS[pressed.dataset.key ?? ""] ?? [];
  if (!screen || keysym === undefined || code === undefined) {
    return;
  }
  if (pressed.hasAttribute("aria-pressed")) {
    const down = pressed.getAttribute("aria-pressed") !== "true";
    pressed.setAttribute("aria-pressed", String(down));
    screen.sendKey(keysym, code, down);
  } else {
    screen.sendKey(keysym, code);
  }
}

/** By Ctrl+Alt+M: the console saw Ctrl and Alt go down and will not see them come up. */
function summoned(): boolean {
  screen?.sendKey(ALT, "AltLeft", false);
  screen?.sendKey(CONTROL, "ControlLeft", false);
  return screen !== undefined;
}

async function toggleTyping(): Promise<void> {
  if (typing) {
    typing.abort();
  } else if (screen) {
    typing = new AbortController();
    typeButton.textContent = "Stop";
    await typeText(screen, typing.signal);
    typing = undefined;
    typeButton.textContent = "Type it";
  }
}

async function typeText(console: Screen, stop: AbortSignal): Promise<void> {
  const strokes = strokesOf(text.value);
  const done = await type(console, strokes, stop, (count) => {
    note.textContent = `Typing ${count} of ${strokes.length}`;
  });
  note.textContent = stop.aborted ? `Stopped after ${done} of ${strokes.length}.` : `Typed ${done} keys.`;
}
