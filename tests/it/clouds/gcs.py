"""A stand-in for Google Cloud Storage: as much of its XML and JSON API as Lifeboat uses, in memory.

gcs.py PORT DIRECTORY. In the directory: accounts.json, {client e-mail: {"public": PEM, "permissions": [...]}}; bucket.json,
the bucket's resource as the JSON API tells it; iam.json, its policy. Both APIs' names are those of Google's reference.
"""

import base64
import hashlib
import json
import sys
import threading
import time
import uuid
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

HOME = Path(sys.argv[2])
PAGE = 7
SCOPES = ("https://www.googleapis.com/auth/devstorage.full_control", "https://www.googleapis.com/auth/cloud-platform")
OBJECTS = {}  # key → (bytes, generation, time)
UPLOADS = {}  # id → {part: bytes}
LOCK = threading.Lock()
GENERATION = [time.time_ns() // 1000]


class Refused(Exception):
    def __init__(self, status, code, message):
        self.status, self.code, self.message = status, code, message


def settings(name):
    return json.loads((HOME / name).read_text())


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def account_of(header):
    """The account whose key has signed the token, as a JSON Web Token says it."""
    if not header or not header.startswith("Bearer "):
        raise Refused(401, "AuthenticationRequired", "Authentication required.")
    try:
        message, signature = header[len("Bearer ") :].rsplit(".", 1)
        head, claims = (json.loads(decoded(part)) for part in message.split("."))
        account = settings("accounts.json")[claims["iss"]]
        key = serialization.load_pem_public_key(account["public"].encode())
        key.verify(decoded(signature), message.encode(), padding.PKCS1v15(), hashes.SHA256())
        right = head["alg"] == "RS256" and claims["scope"] in SCOPES and claims["iat"] <= time.time() + 60
        if not right or claims["exp"] <= time.time():
            raise ValueError(claims)
    except (ValueError, KeyError, InvalidSignature) as error:
        raise Refused(401, "AuthenticationRequired", "Invalid Credentials") from error
    return account


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", headers.get("length", len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def may(self, permission):
        if permission not in self.account["permissions"]:
            raise Refused(403, "AccessDenied", f"Access denied. It does not have {permission} access.")

    def handle_one(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        parts = [unquote(part) for part in url.path.split("/")[1:]]
        is_json = parts[0] == "storage"
        try:
            if parts == ["listing"]:
                lines = [f"{key} {len(data)} {generation}" for key, (data, generation, _) in sorted(OBJECTS.items())]
                return self.answer(200, "\n".join(lines).encode())
            self.account = account_of(self.headers.get("Authorization"))
            bucket = parts[3] if is_json else parts[0]
            if bucket != settings("bucket.json")["name"]:
                raise Refused(404, "NoSuchBucket", "The specified bucket does not exist.")
            if is_json:
                return self.resource(parts[4:])
            return self.xml(parts[1] if len(parts) > 1 else "", query, body)
        except Refused as refused:
            if is_json:
                error = {"error": {"code": refused.status, "message": refused.message}}
                return self.answer(refused.status, json.dumps(error).encode(), Content_Type="application/json")
            text = f"<Error><Code>{refused.code}</Code><Message>{escape(refused.message)}</Message></Error>"
            return self.answer(refused.status, text.encode(), Content_Type="application/xml")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one

    def resource(self, rest):
        """The JSON API, of which only what is read."""
        known = settings("bucket.json")
        if not rest:
            self.may("storage.buckets.get")
            found = known
        elif rest[0] == "iam":
            self.may("storage.buckets.getIamPolicy")
            found = settings("iam.json")
        elif rest[0] in ("acl", "defaultObjectAcl"):
            if known["iamConfiguration"]["uniformBucketLevelAccess"]["enabled"]:
                raise Refused(400, "Invalid", "Cannot get legacy ACL for a bucket with uniform bucket-level access.")
            self.may("storage.buckets.getIamPolicy")
            found = {"items": known.get(rest[0], [])}
        else:
            self.may("storage.objects.get")
            if rest[1] not in OBJECTS:
                raise Refused(404, "NoSuchKey", "No such object")
            data, generation, written = OBJECTS[rest[1]]
            found = {"name": rest[1], "size": str(len(data)), "generation": str(generation), "storageClass": "STANDARD"}
            found.update(known.get("_objects", {}))
            if "retentionPolicy" in known:
                until = written + int(known["retentionPolicy"]["retentionPeriod"])
                found["retentionExpirationTime"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until))
        self.answer(200, json.dumps(found).encode(), Content_Type="application/json")

    def xml(self, key, query, body):
        if not key:
            return self.list(query)
        match self.command:
            case "PUT" if "uploadId" in query:
                self.may("storage.objects.create")
                self.upload(query)[int(query["partNumber"])] = body
                return self.answer(200, ETag=f'"{hashlib.md5(body).hexdigest()}"')
            case "PUT":
                return self.answer(200, **self.put(key, body, self.headers.get("x-goog-if-generation-match")))
            case "POST" if "uploads" in query:
                self.may("storage.objects.create")
                name = uuid.uuid4().hex
                UPLOADS[name] = {}
                text = f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
                return self.answer(200, text.encode())
            case "POST":
                return self.complete(key, query, body)
            case "DELETE" if "uploadId" in query:
                self.upload(query)
                del UPLOADS[query["uploadId"]]
                return self.answer(204)
            case "DELETE":
                self.may("storage.objects.delete")
                with LOCK:
                    _, _, written = self.found(key)
                    kept = settings("bucket.json").get("retentionPolicy", {}).get("retentionPeriod", 0)
                    if written + int(kept) > time.time():
                        raise Refused(403, "RetentionPolicyNotMet", "Object is subject to bucket's retention policy.")
                    del OBJECTS[key]
                return self.answer(204)
            case _:
                return self.get(key)

    def found(self, key):
        if key not in OBJECTS:
            raise Refused(404, "NoSuchKey", "The specified key does not exist.")
        return OBJECTS[key]

    def upload(self, query):
        if query["uploadId"] not in UPLOADS:
            raise Refused(404, "NoSuchUpload", "The requested upload was not found.")
        return UPLOADS[query["uploadId"]]

    def put(self, key, body, wanted):
        self.may("storage.objects.create")
        with LOCK:
            if key in OBJECTS:
                if wanted == "0":
                    raise Refused(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.")
                # To overwrite is to delete.
                self.may("storage.objects.delete")
            GENERATION[0] += 1
            OBJECTS[key] = (body, GENERATION[0], int(time.time()))
            return {"ETag": f'"{hashlib.md5(body).hexdigest()}"', "x_goog_generation": str(GENERATION[0])}

    def complete(self, key, query, body):
        parts = self.upload(query)
        named = [int(part.findtext("PartNumber")) for part in ElementTree.fromstring(body).findall("Part")]
        if not named or named != sorted(parts) or any(len(parts[part]) < 5 << 20 for part in named[:-1]):
            raise Refused(400, "InvalidPart", "One or more of the specified parts could not be found, or is too small.")
        made = self.put(key, b"".join(parts[part] for part in named), None)
        del UPLOADS[query["uploadId"]]
        text = f"<CompleteMultipartUploadResult><ETag>{escape(made['ETag'])}</ETag></CompleteMultipartUploadResult>"
        self.answer(200, text.encode(), x_goog_generation=made["x_goog_generation"])

    def get(self, key):
        self.may("storage.objects.get")
        data, generation, written = self.found(key)
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        headers = {"ETag": tag, "x_goog_generation": str(generation), "Last_Modified": formatdate(written, usegmt=True)}
        if self.headers.get("If-Match", tag) != tag:
            raise Refused(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.")
        asked = self.headers.get("Range")
        if not asked:
            return self.answer(200, data, **headers)
        first, last = asked.removeprefix("bytes=").split("-")
        start = int(first) if first else max(0, len(data) - int(last))
        end = min(int(last) + 1, len(data)) if first and last else len(data)
        if start >= len(data):
            raise Refused(416, "InvalidRange", "The requested range cannot be satisfied.")
        headers["Content_Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        return self.answer(206, data[start:end], **headers)

    def list(self, query):
        self.may("storage.objects.list")
        prefix, after = query.get("prefix", ""), query.get("continuation-token", query.get("start-after", ""))
        delimiter = query.get("delimiter")
        items = {}
        with LOCK:
            for key, (data, generation, written) in sorted(OBJECTS.items()):
                if not key.startswith(prefix):
                    continue
                rest = key[len(prefix) :]
                if delimiter and delimiter in rest:
                    folder = prefix + rest.split(delimiter)[0] + delimiter
                    items[folder] = f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
                    continue
                modified = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(written))
                items[key] = (
                    f"<Contents><Key>{escape(key)}</Key><Generation>{generation}</Generation><LastModified>{modified}"
                    f'</LastModified><ETag>"{hashlib.md5(data).hexdigest()}"</ETag><Size>{len(data)}</Size></Contents>'
                )
        names = sorted(name for name in items if name > after)
        size = min(int(query.get("max-keys", PAGE)), PAGE)
        page, more = names[:size], len(names) > size
        text = "".join(items[name] for name in page)
        if more:
            text += f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>"
        self.answer(200, f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{text}</ListBucketResult>".encode())


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Server).serve_forever()
