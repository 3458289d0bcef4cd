// The part of spice-html5 0.2.1 this page uses. The package brings no types of its own.

declare module "spice/spiceconn.js" {
  export interface Options {
    uri: string;
    screen_id?: string;
    password?: string;
    parent?: SpiceConn;
    connection_id?: number;
    type?: number;
    chan_id?: number;
    onerror?: (error: unknown) => void;
    onagent?: () => void;
  }

  export class SpiceConn {
    constructor(options: Options);
    readonly ws: WebSocket | undefined;
    readonly connection_id: number;
    readonly type: number;
    readonly chan_id: number;
    readonly screen_id: string;
    readonly parent: SpiceConn;
    readonly state: string;
    readonly onerror: (error: unknown) => void;
    channel_type(): string;
    send_hdr(): void;
    send_msg(message: import("spice/spicemsg.js").SpiceMiniData): void;
    process_channel_message(message: import("spice/spicemsg.js").SpiceMiniData): boolean;
    log_info(...words: unknown[]): void;
    log_warn(...words: unknown[]): void;
    log_err(...words: unknown[]): void;
  }
}

declare module "spice/main.js" {
  import { SpiceConn } from "spice/spiceconn.js";
  import type { SpiceCursorConn } from "spice/cursor.js";
  import type { SpiceDisplayConn } from "spice/display.js";
  import type { SpiceInputsConn } from "spice/inputs.js";

  export class SpiceMainConn extends SpiceConn {
    mouse_mode: number;
    display: SpiceDisplayConn | undefined;
    inputs: SpiceInputsConn | undefined;
    cursor: SpiceCursorConn | undefined;
    resize_window(flags: number, width: number, height: number, depth: number, x: number, y: number): void;
    stop(): void;
  }
}

declare module "spice/display.js" {
  import { SpiceConn } from "spice/spiceconn.js";

  export class SpiceDisplayConn extends SpiceConn {
    surfaces: { canvas: HTMLCanvasElement }[] | undefined;
    primary_surface: number | undefined;
    hook_events(): void;
    unhook_events(): void;
  }
}

declare module "spice/inputs.js" {
  import { SpiceConn } from "spice/spiceconn.js";

  export class SpiceInputsConn extends SpiceConn {
    mouse_mode: number;
    waiting_for_ack: number;
  }
}

declare module "spice/cursor.js" {
  import { SpiceConn } from "spice/spiceconn.js";

  export interface Cursor {
    header: { width: number; height: number; hot_spot_x: number; hot_spot_y: number };
    data: ArrayBuffer;
  }

  export class SpiceCursorConn extends SpiceConn {
    set_cursor(cursor: Cursor): void;
  }
}

declare module "spice/png.js" {
  export function create_rgba_png(height: number, width: number, pixels: ArrayBuffer): string;
}

declare module "spice/spicemsg.js" {
  export class SpiceMiniData {
    type: number;
    size: number;
    data: ArrayBuffer | undefined;
  }

  export class SpiceLinkHeader {
    size: number;
    buffer_size(): number;
    to_buffer(buffer: ArrayBuffer, at?: number): void;
  }

  export class SpiceLinkMess {
    connection_id: number;
    channel_type: number;
    channel_id: number;
    common_caps: number[];
    channel_caps: number[];
    buffer_size(): number;
    to_buffer(buffer: ArrayBuffer, at?: number): void;
  }

  export class SpiceMsgChannels {
    constructor(buffer: ArrayBuffer | undefined);
    channels: { type: number; id: number }[];
  }
}

declare module "spice/enums.js" {
  export const Constants: Readonly<Record<string, number>> & {
    readonly SPICE_MSG_MAIN_CHANNELS_LIST: number;
    readonly SPICE_MSG_INPUTS_INIT: number;
    readonly SPICE_MSG_INPUTS_MOUSE_MOTION_ACK: number;
    readonly SPICE_MSGC_INPUTS_KEY_DOWN: number;
    readonly SPICE_MSGC_INPUTS_KEY_UP: number;
    readonly SPICE_MSGC_INPUTS_MOUSE_MOTION: number;
    readonly SPICE_MSGC_INPUTS_MOUSE_POSITION: number;
    readonly SPICE_MSGC_INPUTS_MOUSE_PRESS: number;
    readonly SPICE_MSGC_INPUTS_MOUSE_RELEASE: number;
    readonly SPICE_CHANNEL_DISPLAY: number;
    readonly SPICE_CHANNEL_INPUTS: number;
    readonly SPICE_CHANNEL_CURSOR: number;
    readonly SPICE_MOUSE_MODE_CLIENT: number;
    readonly SPICE_INPUT_MOTION_ACK_BUNCH: number;
    readonly SPICE_COMMON_CAP_PROTOCOL_AUTH_SELECTION: number;
    readonly SPICE_COMMON_CAP_MINI_HEADER: number;
    readonly SPICE_DISPLAY_CAP_SIZED_STREAM: number;
    readonly SPICE_DISPLAY_CAP_STREAM_REPORT: number;
    readonly SPICE_DISPLAY_CAP_MULTI_CODEC: number;
    readonly SPICE_DISPLAY_CAP_CODEC_MJPEG: number;
  };
}
