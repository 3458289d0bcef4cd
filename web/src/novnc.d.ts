// The part of noVNC 1.7 this page uses. The package brings no types of its own.

declare module "novnc/rfb.js" {
  export interface Credentials {
    username?: string;
    password?: string;
    target?: string;
  }

  export interface RfbEvents {
    connect: CustomEvent<Record<string, never>>;
    disconnect: CustomEvent<{ clean: boolean }>;
    credentialsrequired: CustomEvent<{ types: (keyof Credentials)[] }>;
    securityfailure: CustomEvent<{ status: number; reason?: string }>;
    serververification: CustomEvent<{ type: string; publickey: Uint8Array }>;
    clipboard: CustomEvent<{ text: string }>;
    desktopname: CustomEvent<{ name: string }>;
  }

  export default class RFB {
    constructor(target: HTMLElement, channel: WebSocket, options?: { shared?: boolean });
    viewOnly: boolean;
    scaleViewport: boolean;
    resizeSession: boolean;
    showDotCursor: boolean;
    qualityLevel: number;
    compressionLevel: number;
    background: string;
    addEventListener<K extends keyof RfbEvents>(
      type: K,
      listener: (event: RfbEvents[K]) => void,
    ): void;
    approveServer(): void;
    clipboardPasteFrom(text: string): void;
    disconnect(): void;
    focus(options?: FocusOptions): void;
    sendCredentials(credentials: Credentials): void;
    sendCtrlAltDel(): void;
    sendKey(keysym: number, code: string | null, down?: boolean): void;
  }
}

declare module "novnc/input/keysymdef.js" {
  const keysyms: { lookup(codePoint: number): number };
  export default keysyms;
}

declare module "novnc/util/logging.js" {
  export function initLogging(level: string): void;
}

declare module "novnc/input/xtscancodes.js" {
  const scancodes: Readonly<Record<string, number>>;
  export default scancodes;
}
