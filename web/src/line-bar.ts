// The bar of a serial line.

import * as base from "./bar.js";
import type { Line } from "./serial-session.js";

let line: Line | undefined;

export function prepare(leave: () => void): void {
  base.prepare({ leave, back: () => line?.focus(), summoned: () => line !== undefined });
}

export function attach(console: Line | undefined, viewOnly: boolean): void {
  line = console;
  document.documentElement.classList.toggle("view-only", viewOnly);
  if (console) {
    base.pin(3000);
  }
}

/** A line has no clipboard. */
export function receive(): void {}
