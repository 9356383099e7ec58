/** Our icons: two stages with a worker each between two layers, in the host's colours. */

import { LabIcon } from '@jupyterlab/ui-components';

const RUN = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <g class="jp-icon3" fill="#616161">
    <circle cx="5" cy="6" r="2.6"/><circle cx="5" cy="18" r="2.6"/>
    <circle cx="19" cy="6" r="2.6"/><circle cx="19" cy="18" r="2.6"/>
    <path d="M7.4 5.2h9.2v1.6H7.4zM7.4 17.2h9.2v1.6H7.4z"/>
    <path d="M6.6 7.2l1.1-1.1 9.7 10.7-1.1 1.1zM16.3 6.1l1.1 1.1L7.7 17.9l-1.1-1.1z"/>
  </g>
</svg>`;

const COMPARE = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <g class="jp-icon3" fill="none" stroke="#616161" stroke-width="2">
    <path class="jp-icon3" d="M4 4v16h16"/><path d="M7 8c3 6 7 8 13 8"/><path stroke-dasharray="3 2" d="M7 6c4 3 8 4 13 5"/>
  </g>
</svg>`;

export const runIcon = new LabIcon({ name: 'pluralis-lab:run', svgstr: RUN });
export const compareIcon = new LabIcon({ name: 'pluralis-lab:compare', svgstr: COMPARE });
