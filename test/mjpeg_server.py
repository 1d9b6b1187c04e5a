"""
A camera in the network: an HTTP server of MJPEG on 127.0.0.1, for tests that start and kill it.

Arguments: PORT WIDTH HEIGHT [PICTURES]; after so many pictures it falls silent, and stays there.
"""

import http.server
import sys
import time

import cv2
import numpy as np


def main():
    """Serve until the process is killed."""
    port, width, height = map(int, sys.argv[1:4])
    most = int(sys.argv[4]) if len(sys.argv) > 4 else 10**9
    picture = np.full((height, width, 3), 90, np.uint8)
    jpeg = cv2.imencode('.jpg', picture)[1].tobytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802 - the name is the library's
            self.send_response(200)
            self.send_header('Content-Type', 'multipart/x-mixed-replace; boundary=frame')
            self.end_headers()
            for _ in range(most):
                self.wfile.write(b'--frame\r\nContent-Type: image/jpeg\r\nContent-Length: '
                                 + str(len(jpeg)).encode() + b'\r\n\r\n' + jpeg + b'\r\n')
                time.sleep(0.02)
            time.sleep(1000)

        def log_message(self, *arguments):
            pass

    http.server.ThreadingHTTPServer(('127.0.0.1', port), Handler).serve_forever()


if __name__ == '__main__':
    main()
