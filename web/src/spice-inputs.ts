// Keys and pointer of a SPICE console: from the browser's events to messages of its input channel.

import { Constants } from "spice/enums.js";
import type { SpiceInputsConn } from "spice/inputs.js";
import { SpiceMiniData } from "spice/spicemsg.js";

import { codeOf, scanOf } from "./scancodes.js";

/** By `button` of a pointer event: SPICE's number of it, and its bit in a state. */
const BUTTONS = [
  { number: 1, bit: 1 },
  { number: 2, bit: 2 },
  { number: 3, bit: 4 },
] as const;

const WHEEL = { up: 4, down: 5 } as const;

/** What a browser calls one line of a page; a step of a usual wheel is about three. */
const WHEEL_STEP = { 0: 50, 1: 3, 2: 1 } as const;

export class Input {
  readonly #channel: () => SpiceInputsConn | undefined;
  readonly #held = new Set<string>();
  #canvas: HTMLCanvasElement | undefined;
  #listening: AbortController | undefined;
  #buttons = 0;
  #turned = 0;
  #last: { x: number; y: number } | undefined;
  /** A place that was not told yet, because the machine has yet to take in earlier ones. */
  #due: { x: number; y: number } | undefined;

  /** The channel is asked for each time: it comes after the screen. */
  constructor(channel: () => SpiceInputsConn | undefined) {
    this.#channel = channel;
  }

  /** Listens to what happens on this canvas, and on no other any more. */
  listen(canvas: HTMLCanvasElement): void {
    this.ignore();
    this.#canvas = canvas;
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    canvas.addEventListener("keydown", (event) => this.#key(event, true), { signal });
    canvas.addEventListener("keyup", (event) => this.#key(event, false), { signal });
    canvas.addEventListener("blur", () => this.#releaseAll(), { signal });
    canvas.addEventListener("pointermove", (event) => this.#move(event), { signal });
    canvas.addEventListener("pointerdown", (event) => this.#press(event), { signal });
    canvas.addEventListener("pointerup", (event) => this.#release(event), { signal });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault(), { signal });
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { signal, passive: false });
  }

  /** Listens no more. */
  ignore(): void {
    this.#releaseAll();
    this.#listening?.abort();
  }

  /** Presses or releases a physical key. */
  send(code: string, down: boolean): void {
    const scan = scanOf(code, down);
    if (scan !== undefined) {
      const { SPICE_MSGC_INPUTS_KEY_DOWN, SPICE_MSGC_INPUTS_KEY_UP } = Constants;
      const bytes = new DataView(new ArrayBuffer(4));
      bytes.setUint32(0, scan, true);
      this.#send(down ? SPICE_MSGC_INPUTS_KEY_DOWN : SPICE_MSGC_INPUTS_KEY_UP, bytes);
    }
  }

  /** The machine took in earlier places of the pointer. */
  pointed(): void {
    const due = this.#due;
    this.#due = undefined;
    if (due) {
      this.#point(due);
    }
  }

  #key(event: KeyboardEvent, down: boolean): void {
    // On-screen keyboards know no physical keys.
    const typed = event.key.length === 1 ? codeOf(event.key.codePointAt(0) ?? 0) : event.key;
    const code = event.code || typed;
    if (!code || scanOf(code, down) === undefined) {
      return;
    }
    event.preventDefault();
    this.send(code, down);
    if (down) {
      this.#held.add(code);
    } else {
      this.#held.delete(code);
    }
    // macOS tells of no other key's release while its command key is down.
    if (!down && code.startsWith("Meta")) {
      this.#releaseAll();
    }
  }

  #releaseAll(): void {
    this.#held.forEach((code) => this.send(code, false));
    this.#held.clear();
  }

  #press(event: PointerEvent): void {
    event.preventDefault();
    this.#canvas?.focus({ preventScroll: true });
    this.#canvas?.setPointerCapture(event.pointerId);
    this.#move(event);
    this.#button(event.button, true);
  }

  #release(event: PointerEvent): void {
    event.preventDefault();
    this.#move(event);
    this.#button(event.button, false);
  }

  #button(index: number, down: boolean): void {
    const button = BUTTONS[index];
    if (button) {
      this.#buttons = down ? this.#buttons | button.bit : this.#buttons & ~button.bit;
      this.#click(button.number, down);
    }
  }

  #wheel(event: WheelEvent): void {
    event.preventDefault();
    const step = WHEEL_STEP[event.deltaMode as keyof typeof WHEEL_STEP] ?? 1;
    this.#turned += event.deltaY / step;
    for (; Math.abs(this.#turned) >= 1; this.#turned -= Math.sign(this.#turned)) {
      const number = this.#turned < 0 ? WHEEL.up : WHEEL.down;
      this.#click(number, true);
      this.#click(number, false);
    }
  }

  #click(number: number, down: boolean): void {
    const { SPICE_MSGC_INPUTS_MOUSE_PRESS, SPICE_MSGC_INPUTS_MOUSE_RELEASE } = Constants;
    const bytes = new DataView(new ArrayBuffer(3));
    bytes.setUint8(0, number);
    bytes.setUint16(1, this.#buttons, true);
    this.#send(down ? SPICE_MSGC_INPUTS_MOUSE_PRESS : SPICE_MSGC_INPUTS_MOUSE_RELEASE, bytes);
  }

  /** The picture may be scaled; the machine wants its own pixels. */
  #move(event: PointerEvent): void {
    const canvas = this.#canvas;
    if (canvas) {
      const box = canvas.getBoundingClientRect();
      const within = (at: number, size: number): number => Math.min(Math.max(Math.floor(at), 0), size - 1);
      this.#point({
        x: within(((event.clientX - box.x) * canvas.width) / box.width, canvas.width),
        y: within(((event.clientY - box.y) * canvas.height) / box.height, canvas.height),
      });
    }
  }

  #point(place: { x: number; y: number }): void {
    const channel = this.#channel();
    if (!channel) {
      return;
    }
    if (channel.waiting_for_ack >= 2 * Constants.SPICE_INPUT_MOTION_ACK_BUNCH) {
      this.#due = place;
      return;
    }
    channel.waiting_for_ack++;
    if (channel.mouse_mode === Constants.SPICE_MOUSE_MODE_CLIENT) {
      this.#send(Constants.SPICE_MSGC_INPUTS_MOUSE_POSITION, this.#position(place));
    } else {
      this.#send(Constants.SPICE_MSGC_INPUTS_MOUSE_MOTION, this.#motion(place));
    }
    this.#last = place;
  }

  #position({ x, y }: { x: number; y: number }): DataView<ArrayBuffer> {
    const bytes = new DataView(new ArrayBuffer(11));
    bytes.setUint32(0, x, true);
    bytes.setUint32(4, y, true);
    bytes.setUint16(8, this.#buttons, true);
    return bytes;
  }

  #motion({ x, y }: { x: number; y: number }): DataView<ArrayBuffer> {
    const last = this.#last ?? { x, y };
    const bytes = new DataView(new ArrayBuffer(10));
    bytes.setInt32(0, x - last.x, true);
    bytes.setInt32(4, y - last.y, true);
    bytes.setUint16(8, this.#buttons, true);
    return bytes;
  }

  #send(type: number, bytes: DataView<ArrayBuffer>): void {
    const channel = this.#channel();
    if (channel?.state === "ready") {
      const message = new SpiceMiniData();
      message.type = type;
      message.size = bytes.byteLength;
      message.data = bytes.buffer;
      channel.send_msg(message);
    }
  }
}
