import { beforeEach, describe, expect, it } from 'vitest';

import { ApiRefusal } from '../api/client';
import type { PictureReply, RunPicture } from '../api/types';
import { Feeds } from './feeds';
import type { SocketLike, StreamHost } from './stream';

class FakeSocket implements SocketLike {
  onopen: ((event: Event) => unknown) | null = null;
  onmessage: ((event: MessageEvent) => unknown) | null = null;
  onclose: ((event: CloseEvent) => unknown) | null = null;
  sent: unknown[] = [];
  isClosed = false;

  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }

  close(): void {
    this.isClosed = true;
  }

  open(): void {
    this.onopen?.({} as Event);
  }

  say(message: unknown): void {
    this.onmessage?.({ data: JSON.stringify(message) } as MessageEvent);
  }

  drop(): void {
    this.onclose?.({} as CloseEvent);
  }
}

const picture = (seq: number) => ({ version: 1, seq, over: false }) as RunPicture;

class Outside {
  sockets: FakeSocket[] = [];
  timers: { after_s: number; callback: () => void }[] = [];
  paints: (() => void)[] = [];
  reply: PictureReply | ApiRefusal = new ApiRefusal('no such run', 404, '');
  isVisible = true;
  onChange: () => void = () => undefined;

  host(): StreamHost {
    return {
      openSocket: () => {
        const socket = new FakeSocket();
        this.sockets.push(socket);
        return socket;
      },
      poll: () => (this.reply instanceof ApiRefusal ? Promise.reject(this.reply) : Promise.resolve(this.reply)),
      setTimer: (after_s, callback) => {
        const timer = { after_s, callback };
        this.timers.push(timer);
        return () => {
          this.timers = this.timers.filter(one => one !== timer);
        };
      },
      afterPaint: callback => this.paints.push(callback),
      random: () => 0,
      poll_s: () => 4
    };
  }

  fire(): void {
    const timer = this.timers.shift();
    timer?.callback();
  }
}

describe('feeds', () => {
  let outside: Outside;
  let feeds: Feeds;

  beforeEach(() => {
    outside = new Outside();
    feeds = new Feeds(() => outside.host(), {
      isVisible: () => outside.isVisible,
      onChange: callback => {
        outside.onChange = callback;
        return () => undefined;
      }
    });
  });

  it('share one socket a run, and close it with the last viewer', () => {
    const [a, b] = [feeds.get('r'), feeds.get('r')];
    expect(outside.sockets).toHaveLength(1);
    a.dispose();
    expect(outside.sockets[0].isClosed).toBe(false);
    b.dispose();
    expect(outside.sockets[0].isClosed).toBe(true);
    expect(outside.timers).toHaveLength(0);
    feeds.get('r');
    expect(outside.sockets).toHaveLength(2);
  });

  it('acknowledge after the page has painted', () => {
    const feed = feeds.get('r');
    const drawn: number[] = [];
    feed.changed.connect((_, now) => drawn.push(now.seq));
    const [socket] = outside.sockets;
    socket.open();
    socket.say({ type: 'picture', picture: picture(5), partial: false });
    expect(drawn).toEqual([5]);
    expect(socket.sent).toEqual([]);
    outside.paints.forEach(paint => paint());
    expect(socket.sent).toEqual([{ type: 'ack', seq: 5 }]);
  });

  it('wake a viewer with the newest picture, and sleep only when all do', () => {
    const [a, b] = [feeds.get('r'), feeds.get('r')];
    const drawn: number[] = [];
    a.changed.connect((_, now) => drawn.push(now.seq));
    const [socket] = outside.sockets;
    socket.open();
    a.setVisible(false);
    expect(a.status).toBe('standby');
    expect(b.status).toBe('live');
    expect(socket.sent).toEqual([]);
    socket.say({ type: 'picture', picture: picture(5), partial: false });
    expect(drawn).toEqual([]);
    a.setVisible(true);
    expect(drawn).toEqual([5]);
    a.setVisible(false);
    b.setVisible(false);
    expect(socket.sent).toEqual([{ type: 'visible', visible: false }]);
  });

  it('sleep with the page', () => {
    feeds.get('r');
    const [socket] = outside.sockets;
    socket.open();
    outside.isVisible = false;
    outside.onChange();
    outside.isVisible = true;
    outside.onChange();
    expect(socket.sent).toEqual([
      { type: 'visible', visible: false },
      { type: 'visible', visible: true }
    ]);
  });

  it('say that a run is gone, and look for it afresh when asked again', async () => {
    const feed = feeds.get('r');
    outside.sockets[0].drop();
    outside.fire();
    outside.sockets[1].drop();
    await new Promise(resolve => setTimeout(resolve));
    expect(feed.status).toBe('gone');
    const again = feeds.get('r');
    expect(again.status).toBe('connecting');
    feed.dispose();
    outside.sockets[2].open();
    expect(again.status).toBe('live');
  });
});
