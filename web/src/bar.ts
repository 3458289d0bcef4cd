// What the bars of all consoles do: hide, come back, fill the screen, leave.
//
// A bar hides while the console is in use and comes back at the top edge, on touching its handle,
// or with Ctrl+Alt+M: the console takes the Tab key, so the keyboard needs a way out of it.

import { button, element } from "./view.js";

export interface Uses {
  leave(): void;
  /** The keyboard goes back to the console. */
  back(): void;
  /** Whether there is a console; told when the bar is called by its keys. */
  summoned(): boolean;
}

const bar = element("bar", HTMLElement);
const fullScreen = button("fullscreen");

let pinned: ReturnType<typeof setTimeout> | undefined;

/** Wires the bar up, once. */
export function prepare(uses: Uses): void {
  button("leave").addEventListener("click", uses.leave);
  button("handle").addEventListener("click", () => (pin(4000), first()?.focus()));
  bar.addEventListener("keydown", (event) => event.key === "Escape" && uses.back());
  window.addEventListener("keydown", (event) => summon(event, uses), { capture: true });
  fullScreen.hidden = !document.fullscreenEnabled;
  fullScreen.addEventListener("click", () => void toggleFullScreen().then(uses.back));
  document.addEventListener("fullscreenchange", () =>
    fullScreen.setAttribute("aria-pressed", String(document.fullscreenElement !== null)),
  );
}

/** Keeps the bar in sight for a while. */
export function pin(milliseconds: number): void {
  clearTimeout(pinned);
  bar.classList.add("pinned");
  pinned = setTimeout(() => bar.classList.remove("pinned"), milliseconds);
}

const first = (): HTMLElement | null => bar.querySelector<HTMLElement>("button:not([hidden]):not(#handle)");

function summon(event: KeyboardEvent, uses: Uses): void {
  if (!(event.ctrlKey && event.altKey && event.code === "KeyM") || !uses.summoned()) {
    return;
  }
  event.preventDefault();
  event.stopImmediatePropagation();
  pin(4000);
  first()?.focus();
}

/** In full screen a page may also have the keys that the desktop keeps, where browsers allow. */
async function toggleFullScreen(): Promise<void> {
  const { keyboard } = navigator as { keyboard?: { lock?: () => Promise<void> } };
  if (document.fullscreenElement) {
    await document.exitFullscreen();
  } else {
    await document.documentElement.requestFullscreen();
    await keyboard?.lock?.().catch(() => undefined);
  }
}
