/** The two ways to the server, as plain functions, so that everything above them can be tested without one. */

import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

/** Asks `path` (below the API's root, with its query) and gives the server's answer, whatever its status. */
export type Ask = (path: string, init?: RequestInit) => Promise<Response>;

/** Opens a web socket at `path` (below the API's root, with its query). */
export type OpenSocket = (path: string) => WebSocket;

export interface Transport {
  ask: Ask;
  openSocket: OpenSocket;
}

const ROOT = 'pluralis-lab/api';

/** The transport of a Jupyter page: base URL, token and XSRF cookie are the server connection's business. */
export function jupyterTransport(settings: ServerConnection.ISettings): Transport {
  return {
    ask: (path, init = {}) => ServerConnection.makeRequest(`${URLExt.join(settings.baseUrl, ROOT)}/${path}`, init, settings),
    openSocket: path => {
      const url = new URL(`${URLExt.join(settings.wsUrl, ROOT)}/${path}`);
      if (settings.token && settings.appendToken) {
        url.searchParams.set('token', settings.token);
      }
      return new settings.WebSocket(url.toString());
    }
  };
}
