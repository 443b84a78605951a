"""Makes the corpus of fuzz_channel: first messages of TLS clients that are no members. Run from anywhere; no arguments.

They hold random bytes of Python's ssl, so a new run writes other files of the same kind.
"""
import os
import ssl

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus", "fuzz_channel")


def hello(version=None, name="member"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if version is not None:
        context.minimum_version = context.maximum_version = version
    out = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def main():
    os.makedirs(HERE, exist_ok=True)
    any_version = hello()
    # A pre_shared_key extension (41) of nobody's: one identity and a binder of zeroes, put in place of the padding at the end.
    identity, binder = b"conclave 1", bytes(32)
    identities = len(identity).to_bytes(2, "big") + identity + bytes(4)
    binders = bytes([len(binder)]) + binder
    psk = len(identities).to_bytes(2, "big") + identities + len(binders).to_bytes(2, "big") + binders
    extension = (41).to_bytes(2, "big") + len(psk).to_bytes(2, "big") + psk
    modes = (45).to_bytes(2, "big") + (2).to_bytes(2, "big") + b"\x01\x01"
    body = hello(ssl.TLSVersion.TLSv1_3)[9:]
    at = 2 + 32 + 1 + body[34]
    at += 2 + int.from_bytes(body[at:at + 2], "big")
    at += 1 + body[at]
    extensions = body[at + 2:] + modes + extension
    body = body[:at] + len(extensions).to_bytes(2, "big") + extensions
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    with_key = b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message
    files = {"hello": any_version, "hello_tls13": hello(ssl.TLSVersion.TLSv1_3), "hello_tls12": hello(ssl.TLSVersion.TLSv1_2),
             "wrong_binder": with_key, "cut": any_version[:100], "alert": b"\x15\x03\x03\x00\x02\x02\x28", "http": b"GET / HTTP/1.1\r\n\r\n",
             "empty": b"", "long_record": b"\x16\x03\x03\xff\xff" + bytes(500)}
    for name, data in files.items():
        with open(os.path.join(HERE, name), "wb") as f:
            f.write(data)


if __name__ == "__main__":
    main()
