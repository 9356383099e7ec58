import '@pluralis-lab/views/watch.css';
import './base.css';
import './view.css';
