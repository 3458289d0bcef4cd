// What the bar at the top works on, whatever protocol draws it.

export interface Screen {
  /** Whether the picture is fitted to the window. */
  scaleViewport: boolean;
  focus(options?: FocusOptions): void;
  /** Down, up, or without `down` both. A `code` names the physical key (UI Events `code`). */
  sendKey(keysym: number, code: string | null, down?: boolean): void;
  sendCtrlAltDel(): void;
  /** Puts a text on the console's clipboard, where the protocol can. */
  clipboardPasteFrom?(text: string): void;
}
