# A second implementation of the key schedule and of one slot, in plain Python, from docs/vault-format.md alone
# (XChaCha20-Poly1305 and HKDF included; Argon2id is not: it starts from the root).
# Run: python3 client/vault/tests/vectors/check.py
import json,hmac,hashlib,os,struct
v=json.load(open(os.path.join(os.path.dirname(__file__),'format-1.json')))
H=bytes.fromhex
def hkdf(k,info,n=32):
    prk=hmac.new(bytes(32),k,hashlib.sha256).digest(); out=b'';t=b'';i=1
    while len(out)<n: t=hmac.new(prk,t+info+bytes([i]),hashlib.sha256).digest(); out+=t;i+=1
    return out[:n]
M=0xffffffff
def rot(x,n): return ((x<<n)|(x>>(32-n)))&M
def qr(s,a,b,c,d):
    s[a]=(s[a]+s[b])&M;s[d]=rot(s[d]^s[a],16);s[c]=(s[c]+s[d])&M;s[b]=rot(s[b]^s[c],12)
    s[a]=(s[a]+s[b])&M;s[d]=rot(s[d]^s[a],8);s[c]=(s[c]+s[d])&M;s[b]=rot(s[b]^s[c],7)
C=struct.unpack('<4I',b'expand 32-byte k')
def rounds(s):
    for _ in range(10):
        qr(s,0,4,8,12);qr(s,1,5,9,13);qr(s,2,6,10,14);qr(s,3,7,11,15)
        qr(s,0,5,10,15);qr(s,1,6,11,12);qr(s,2,7,8,13);qr(s,3,4,9,14)
def hchacha(k,n):
    s=list(C)+list(struct.unpack('<8I',k))+list(struct.unpack('<4I',n)); rounds(s)
    return struct.pack('<8I',*(s[:4]+s[12:]))
def block(k,ctr,n12):
    i=list(C)+list(struct.unpack('<8I',k))+[ctr]+list(struct.unpack('<3I',n12)); s=i[:]; rounds(s)
    return struct.pack('<16I',*[(a+b)&M for a,b in zip(s,i)])
def xstream(k,n24,ln,ctr=0):
    sk=hchacha(k,n24[:16]); n=bytes(4)+n24[16:]; o=b''
    while len(o)<ln: o+=block(sk,ctr,n); ctr+=1
    return o[:ln]
def xor(a,b): return bytes(x^y for x,y in zip(a,b))
def poly(key,msg):
    r=int.from_bytes(key[:16],'little')&0x0ffffffc0ffffffc0ffffffc0fffffff; s=int.from_bytes(key[16:],'little'); a=0
    for i in range(0,len(msg),16): a=(a+int.from_bytes(msg[i:i+16]+b'\1','little'))*r%((1<<130)-5)
    return ((a+s)&((1<<128)-1)).to_bytes(16,'little')
def p16(b): return b+bytes(-len(b)%16)
def aead_open(k,aad,sealed):
    n,ct,tag=sealed[:24],sealed[24:-16],sealed[-16:]
    pk=xstream(k,n,32)
    m=p16(aad)+p16(ct)+struct.pack('<QQ',len(aad),len(ct))
    assert poly(pk,m)==tag,'tag'
    return xor(ct,xstream(k,n,len(ct),1))
place=lambda i,c: struct.pack('<QB',i,c)
root=H(v['root']); slot=v['slots'][0]
L=b'lapwing vault 1 '
assert hkdf(root,L+b'opener'+bytes([slot])).hex()==v['opener']
assert hkdf(root,L+b'slot'+bytes([slot])).hex()==v['slot_key']
outer=aead_open(H(v['opener']),place(slot,0),H(v['copy_a']['box']))
assert outer.hex()==v['copy_a']['outer_key']
st=H(v['copy_a']['offline_and_nonce_and_64_bytes_of_slot'])
inner=xor(st[536:],xstream(outer,st[512:536],len(st)-536))
n,ct=inner[:24],inner[24:]
pl=xor(ct,xstream(H(v['slot_key']),n,len(ct),1))
cbor=H(v['payload_cbor']); assert pl==(struct.pack('<H',len(cbor))+cbor)[:len(pl)],'payload'
i=cbor.index(b'\x02\x58\x20')+3; hk=cbor[i:i+32]
for a,b in (('mac',b'header mac'),('ring',b'header ring'),('generation',b'header generation')): assert hkdf(hk,L+b).hex()==v['header_keys'][a]
k=H(v['volume']['key'])
for a,b in (('allocation_key',b'allocation'),('key_table_key',b'key table'),('superblock_key',b'superblock'),('unit_key',b'units')): assert hkdf(k,L+b).hex()==v['volume'][a]
assert hkdf(k,L+b'volume id',16).hex()==v['volume']['id']
# Both copies' allocation units: generations follow each other on the circle, and no record is in them yet.
units=[H(u) for u in v['volume']['allocation_units_first_64_bytes']]
ak=H(v['volume']['allocation_key'])
plain=[xor(u[24:],xstream(ak,u[:24],len(u)-24,1)) for u in units]
gen=[int.from_bytes(p[:8],'little') for p in plain]
assert (gen[0]-gen[1])%(1<<64) in (1,(1<<64)-1),gen
empty=bytes.fromhex('a3000101800280')
for p in plain: assert p[8:]==(struct.pack('<H',len(empty))+empty+bytes(64))[:32],'allocation'
print('independent check passed')
