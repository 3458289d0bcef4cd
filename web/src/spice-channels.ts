// spice-html5's channels, each a WebSocket of its own, as this page needs them.
//
// The library opens whatever channel a machine offers, handles keys and pointer by itself, logs
// addresses with their tokens, and loses a channel for good when a message confuses it. Here four
// channels are opened, input is left to spice-inputs.ts, and a message that fails is left out.

import { SpiceCursorConn, type Cursor as Shape } from "spice/cursor.js";
import { SpiceDisplayConn } from "spice/display.js";
import { Constants } from "spice/enums.js";
import { SpiceInputsConn } from "spice/inputs.js";
import { SpiceMainConn } from "spice/main.js";
import { create_rgba_png } from "spice/png.js";
import type { Options, SpiceConn } from "spice/spiceconn.js";
import { SpiceLinkHeader, SpiceLinkMess, SpiceMiniData, SpiceMsgChannels } from "spice/spicemsg.js";

/** Who uses the channels. */
export interface User {
  /** A channel's socket, before it opens. */
  dialled(socket: WebSocket): void;
  /** A channel that the machine refused, or whose answer made no sense. */
  failed(channel: SpiceConn, error: unknown): void;
  /** The canvas of the screen; another one when the machine changed its mode. */
  drawn(canvas: HTMLCanvasElement): void;
  /** Keys and pointer are taken from now on. */
  listening(): void;
  /** The pointer was acknowledged. */
  pointed(): void;
  /** A program in the guest can set the size of its screen. */
  resizable(): void;
}

/** What TypeScript wants a mixin's base to be. */
type Constructor<T> = new (...given: any[]) => T;

function steady<T extends Constructor<SpiceConn>>(Base: T) {
  return class extends Base {
    /** Answers to what arrives after the end have nowhere to go. */
    override send_msg(message: SpiceMiniData): void {
      if (this.ws?.readyState === WebSocket.OPEN) {
        super.send_msg(message);
      }
    }

    override process_channel_message(message: SpiceMiniData): boolean {
      try {
        return this.understand(message);
      } catch (error) {
        console.debug(`${this.channel_type()}: message ${message.type} left out`, error);
        return true;
      }
    }

    understand(message: SpiceMiniData): boolean {
      return super.process_channel_message(message);
    }

    override log_info(): void {}

    override log_warn(...words: unknown[]): void {
      console.debug(...words.map((word) => String(word).replace(/wss?:\S*/g, "(address)")));
    }

    override log_err(...words: unknown[]): void {
      this.log_warn(...words);
    }
  };
}

export class Main extends steady(SpiceMainConn) {
  readonly user: User;

  /** Dials. The screen is drawn into the element of this id. */
  constructor(uri: string, screen: string, password: string, user: User) {
    const options: Options = {
      uri,
      screen_id: screen,
      password,
      onerror: (error) => user.failed(this, error),
      onagent: () => user.resizable(),
    };
    super(options);
    this.user = user;
    announce(this, user);
  }

  override understand(message: SpiceMiniData): boolean {
    if (message.type !== Constants.SPICE_MSG_MAIN_CHANNELS_LIST) {
      return super.understand(message);
    }
    for (const { type, id } of new SpiceMsgChannels(message.data).channels) {
      this.#open(type, id);
    }
    return true;
  }

  /** One screen, keys and pointer. Sound, USB and their like would each need more of this page. */
  #open(type: number, id: number): void {
    const options = {
      uri: this.ws?.url ?? "",
      parent: this,
      connection_id: this.connection_id,
      type,
      chan_id: id,
      onerror: (error: unknown) => this.user.failed(this, error),
    };
    if (type === Constants.SPICE_CHANNEL_DISPLAY && id === 0) {
      this.display = announce(new Display(options), this.user);
    } else if (type === Constants.SPICE_CHANNEL_INPUTS) {
      this.inputs = announce(new Inputs(options), this.user);
      this.inputs.mouse_mode = this.mouse_mode;
    } else if (type === Constants.SPICE_CHANNEL_CURSOR && id === 0) {
      this.cursor = announce(new Cursor(options), this.user);
    }
  }
}

function announce<T extends SpiceConn>(channel: T, user: User): T {
  if (channel.ws) {
    user.dialled(channel.ws);
  }
  return channel;
}

class Display extends steady(SpiceDisplayConn) {
  declare readonly parent: Main;

  // The library looks into these before it has made them.
  streams: unknown[] = [];
  cache: Record<number, ImageData> = {};

  /** As the library does, without VP8: its `<video>` wants styles and sources that we forbid. */
  override send_hdr(): void {
    const message = new SpiceLinkMess();
    message.connection_id = this.connection_id;
    message.channel_type = this.type;
    message.channel_id = this.chan_id;
    message.common_caps.push(
      bits(Constants.SPICE_COMMON_CAP_PROTOCOL_AUTH_SELECTION, Constants.SPICE_COMMON_CAP_MINI_HEADER),
    );
    message.channel_caps.push(
      bits(
        Constants.SPICE_DISPLAY_CAP_SIZED_STREAM,
        Constants.SPICE_DISPLAY_CAP_STREAM_REPORT,
        Constants.SPICE_DISPLAY_CAP_MULTI_CODEC,
        Constants.SPICE_DISPLAY_CAP_CODEC_MJPEG,
      ),
    );
    const header = new SpiceLinkHeader();
    header.size = message.buffer_size();
    const bytes = new ArrayBuffer(header.buffer_size() + message.buffer_size());
    header.to_buffer(bytes);
    message.to_buffer(bytes, header.buffer_size());
    this.ws?.send(bytes);
  }

  /** Called for each new screen. */
  override hook_events(): void {
    const surface = this.primary_surface === undefined ? undefined : this.surfaces?.[this.primary_surface];
    if (surface) {
      this.parent.user.drawn(surface.canvas);
    }
  }

  override unhook_events(): void {}
}

class Inputs extends steady(SpiceInputsConn) {
  declare readonly parent: Main;

  override understand(message: SpiceMiniData): boolean {
    const understood = super.understand(message);
    if (message.type === Constants.SPICE_MSG_INPUTS_INIT) {
      this.parent.user.listening();
    } else if (message.type === Constants.SPICE_MSG_INPUTS_MOUSE_MOTION_ACK) {
      this.parent.user.pointed();
    }
    return understood;
  }
}

class Cursor extends steady(SpiceCursorConn) {
  /** Without the library's stand-ins for browsers that cannot show it. */
  override set_cursor({ header, data }: Shape): void {
    const screen = document.getElementById(this.parent.screen_id);
    if (screen) {
      const png = create_rgba_png(header.height, header.width, data);
      const place = `${header.hot_spot_x} ${header.hot_spot_y}`;
      screen.style.cursor = `url("data:image/png,${png}") ${place}, default`;
    }
  }
}

const bits = (...numbers: number[]): number => numbers.reduce((all, number) => all | (1 << number), 0);
