import CRedis
import Platform

/// The scripts: each is one call of the driver, which the server runs as one.
///
/// All times are microseconds of the server's clock. A script answers an array, whose first element is the
/// status. Numbers above 2^53 do not come up: Lua has doubles.
enum Script: Int {
  case begin, read, renew, complete, giveBack, takeOne, take, acquire, extend, release, breakerRead,
    breakerSet, probe

  static let count = 13

  var text: StaticString {
    switch self {
    case .begin: Script.beginText
    case .read: Script.readText
    case .renew: Script.renewText
    case .complete: Script.completeText
    case .giveBack: Script.giveBackText
    case .takeOne: Script.takeOneText
    case .take: Script.takeText
    case .acquire: Script.acquireText
    case .extend: Script.extendText
    case .release: Script.releaseText
    case .breakerRead: Script.breakerReadText
    case .breakerSet: Script.breakerSetText
    case .probe: Script.probeText
    }
  }

  // MARK: - Idempotency
  //
  // KEYS: the run; for `begin` also the counter of fences. A run is a hash: s state (R running, S success, F
  // failed, L lost or given back), f fence, o owner, p fingerprint, l the fence that was lost, u until when the
  // lease is, m the most bytes, d the result.

  /// ARGV: fingerprint or '', owner, lease, time to live, most bytes.
  private static let beginText: StaticString = """
    local t=redis.call('TIME') local now=t[1]*1000000+t[2]
    local k=KEYS[1]
    local h=redis.call('HMGET',k,'s','f','o','p','l','u')
    local s,lost=h[1],h[5]
    if s=='R' and now>=tonumber(h[6]) then s='L' lost=h[2] end
    if s and h[4]~='' and ARGV[1]~='' and h[4]~=ARGV[1] then return {6} end
    if s=='S' or s=='F' then
      return {4,h[2],redis.call('PTTL',k)*1000,s,redis.call('HGET',k,'d')}
    end
    if s=='R' and h[3]~=ARGV[2] then return {3,h[2],tonumber(h[6])-now} end
    local fence=h[2]
    if s~='R' then
      if s~='L' then redis.call('DEL',k) lost='' end
      fence=string.format('%.0f',math.max(now,(tonumber(redis.call('GET',KEYS[2])) or 0)+1))
      redis.call('SET',KEYS[2],fence)
      local p=h[4]
      if s~='L' or p=='' then p=ARGV[1] end
      redis.call('HSET',k,'s','R','f',fence,'o',ARGV[2],'p',p,'l',lost,'m',ARGV[5])
    end
    redis.call('HSET',k,'u',string.format('%.0f',now+ARGV[3]))
    redis.call('PEXPIRE',k,string.format('%.0f',math.ceil((ARGV[3]+ARGV[4])/1000)))
    return {0,fence,lost,tonumber(ARGV[3])}
    """

  private static let readText: StaticString = """
    local t=redis.call('TIME') local now=t[1]*1000000+t[2]
    local k=KEYS[1]
    local h=redis.call('HMGET',k,'s','f','l','u')
    local s,lost=h[1],h[3]
    if s=='R' and now>=tonumber(h[4]) then s='L' lost=h[2] end
    if s=='S' or s=='F' then
      return {4,h[2],redis.call('PTTL',k)*1000,s,redis.call('HGET',k,'d')}
    end
    if s=='R' then return {3,h[2],tonumber(h[4])-now} end
    return {10,lost or ''}
    """

  /// ARGV: fence, lease, time to live.
  private static let renewText: StaticString = """
    local t=redis.call('TIME') local now=t[1]*1000000+t[2]
    local h=redis.call('HMGET',KEYS[1],'s','f','u')
    if h[1]~='R' or h[2]~=ARGV[1] or now>=tonumber(h[3]) then return {5} end
    redis.call('HSET',KEYS[1],'u',string.format('%.0f',now+ARGV[2]))
    redis.call('PEXPIRE',KEYS[1],string.format('%.0f',math.ceil((ARGV[2]+ARGV[3])/1000)))
    return {0}
    """

  /// ARGV: fence, state, result, time to live.
  private static let completeText: StaticString = """
    local t=redis.call('TIME') local now=t[1]*1000000+t[2]
    local h=redis.call('HMGET',KEYS[1],'s','f','u','m')
    if (h[1]=='S' or h[1]=='F') and h[2]==ARGV[1] then return {0} end
    if h[1]~='R' or h[2]~=ARGV[1] or now>=tonumber(h[3]) then return {5} end
    if #ARGV[3]>tonumber(h[4]) then return {-6} end
    redis.call('HSET',KEYS[1],'s',ARGV[2],'d',ARGV[3],'l','')
    redis.call('PEXPIRE',KEYS[1],string.format('%.0f',math.ceil(ARGV[4]/1000)))
    return {0}
    """

  /// ARGV: fence, '1' when the outcome is unknown, time to live.
  private static let giveBackText: StaticString = """
    local t=redis.call('TIME') local now=t[1]*1000000+t[2]
    local h=redis.call('HMGET',KEYS[1],'s','f','u','l')
    if h[1]~='R' or h[2]~=ARGV[1] or now>=tonumber(h[3]) then return {5} end
    local lost=h[4]
    if ARGV[2]=='1' then lost=h[2] end
    if lost=='' then redis.call('DEL',KEYS[1]) return {0} end
    redis.call('HSET',KEYS[1],'s','L','l',lost)
    redis.call('PEXPIRE',KEYS[1],string.format('%.0f',math.ceil(ARGV[3]/1000)))
    return {0}
    """

  // MARK: - Buckets
  //
  // A bucket is its level, when that was, and until when the server keeps it, as doubles; a full one need not be there.
  // ARGV, for each of KEYS, as doubles: capacity, tokens each interval, the interval, tokens, least, 1 when it
  // may owe. The answer, as doubles: status, refused, and for each: taken, level, time until there is enough. Packed,
  // because turning numbers into text and back would take longer than the rest.

  //
  // `takeOne` is `take` for one bucket, without tables and loops: most calls take from one, and it takes half the time.

  private static let takeOneText: StaticString = """
    local t=redis.call('TIME') local now=t[1]*1000000+t[2]
    local k=KEYS[1]
    local cap,tokens,interval,n,least,owes=struct.unpack('<dddddd',ARGV[1])
    local level,since,ends=cap,now,0
    local v=redis.call('GET',k)
    if v then
      level,since,ends=struct.unpack('<ddd',v)
      if now>since then level=level+(now-since)*(tokens/interval) end
      if level>cap then level=cap end
    end
    if n>0 and owes==0 then
      local whole=level-level%1
      if whole<least then
        return struct.pack('<ddddd',1,0,0,level,math.min((least-level)*interval/tokens,4e15))
      end
      if whole<n then n=whole end
    end
    if n~=0 then
      level=level-n
      if level>cap then level=cap end
      local full=now+(cap-level)*(interval/tokens)
      if ends>full and ends<now+8e15 then
        redis.call('SET',k,struct.pack('<ddd',level,now,ends),'KEEPTTL')
      else
        local ms=math.min((full-now)/500,4e12)+1000
        ms=ms-ms%1
        redis.call('SET',k,struct.pack('<ddd',level,now,now+ms*1000-1000000),'PX',ms)
      end
    end
    return struct.pack('<ddddd',0,0,n>0 and n or 0,level,0)
    """

  private static let takeText: StaticString = """
    local t=redis.call('TIME') local now=t[1]*1000000+t[2]
    local floor,min=math.floor,math.min
    local state,refused={},0
    for i=1,#KEYS do
      local cap,tokens,interval,n,least,owes=struct.unpack('<dddddd',ARGV[i])
      local level,ends=cap,0
      local v=redis.call('GET',KEYS[i])
      if v then
        local since
        level,since,ends=struct.unpack('<ddd',v)
        if now>since then level=level+(now-since)*(tokens/interval) end
        if level>cap then level=cap end
      end
      local taken,wait=n,0
      if n>0 and owes==0 then
        local whole=floor(level)
        if whole>=least then taken=min(n,whole)
        else
          wait=min((least-level)*interval/tokens,4e15)
          if refused==0 then refused=i end
        end
      end
      state[i]={level,ends,taken,wait,cap,interval/tokens}
    end
    local answer=struct.pack('<dd',refused>0 and 1 or 0,refused>0 and refused-1 or 0)
    for i=1,#KEYS do
      local s=state[i]
      local level,ends,taken,cap=s[1],s[2],s[3],s[5]
      if refused>0 then taken=0
      elseif taken~=0 then
        level=min(cap,level-taken)
        local full=now+(cap-level)*s[6]
        if ends>full and ends<now+8e15 then
          redis.call('SET',KEYS[i],struct.pack('<ddd',level,now,ends),'KEEPTTL')
        else
          local ms=min((full-now)/500,4e12)+1000
          ms=ms-ms%1
          redis.call('SET',KEYS[i],struct.pack('<ddd',level,now,now+ms*1000-1000000),'PX',ms)
        end
      end
      answer=answer..struct.pack('<ddd',taken>0 and taken or 0,level,s[4])
    end
    return answer
    """

  // MARK: - Leases
  //
  // KEYS: the holders by when they end, their fences, the counter of fences. ARGV: owner, limit, time.

  private static let acquireText: StaticString = """
    local t=redis.call('TIME') local now=t[1]*1000000+t[2]
    local gone=redis.call('ZRANGEBYSCORE',KEYS[1],'-inf',string.format('%.0f',now),'LIMIT',0,100)
    for _,o in ipairs(gone) do
      redis.call('ZREM',KEYS[1],o) redis.call('HDEL',KEYS[2],o)
    end
    local live='('..string.format('%.0f',now)
    local mine=redis.call('ZSCORE',KEYS[1],ARGV[1])
    local fence
    if mine and tonumber(mine)>now then
      fence=redis.call('HGET',KEYS[2],ARGV[1])
    else
      if redis.call('ZCOUNT',KEYS[1],live,'+inf')>=tonumber(ARGV[2]) then
        local next=redis.call('ZRANGEBYSCORE',KEYS[1],live,'+inf','WITHSCORES','LIMIT',0,1)
        return {1,next[2]-now}
      end
      fence=string.format('%.0f',math.max(now,(tonumber(redis.call('GET',KEYS[3])) or 0)+1))
      redis.call('SET',KEYS[3],fence)
      redis.call('HSET',KEYS[2],ARGV[1],fence)
    end
    redis.call('ZADD',KEYS[1],string.format('%.0f',now+ARGV[3]),ARGV[1])
    local last=redis.call('ZREVRANGE',KEYS[1],0,0,'WITHSCORES')[2]
    local ms=string.format('%.0f',math.ceil((last-now)/1000)+1000)
    redis.call('PEXPIRE',KEYS[1],ms) redis.call('PEXPIRE',KEYS[2],ms)
    return {0,fence}
    """

  private static let extendText: StaticString = """
    local t=redis.call('TIME') local now=t[1]*1000000+t[2]
    local mine=redis.call('ZSCORE',KEYS[1],ARGV[1])
    if not mine or tonumber(mine)<=now then return {5} end
    redis.call('ZADD',KEYS[1],string.format('%.0f',now+ARGV[3]),ARGV[1])
    local last=redis.call('ZREVRANGE',KEYS[1],0,0,'WITHSCORES')[2]
    local ms=string.format('%.0f',math.ceil((last-now)/1000)+1000)
    redis.call('PEXPIRE',KEYS[1],ms) redis.call('PEXPIRE',KEYS[2],ms)
    return {0}
    """

  private static let releaseText: StaticString = """
    local t=redis.call('TIME') local now=t[1]*1000000+t[2]
    local mine=redis.call('ZSCORE',KEYS[1],ARGV[1])
    redis.call('ZREM',KEYS[1],ARGV[1]) redis.call('HDEL',KEYS[2],ARGV[1])
    if not mine or tonumber(mine)<=now then return {5} end
    return {0}
    """

  // MARK: - Breaker state
  //
  // A hash: g generation, s state, t trips, u until when it is open, o who has the probe, p until when. The answer
  // after the status: generation, state, trips, how long it is open.

  private static let breakerReadText: StaticString = """
    local t=redis.call('TIME') local now=t[1]*1000000+t[2]
    local h=redis.call('HMGET',KEYS[1],'g','s','t','u')
    if not h[1] then return {0,'0',1,0,0} end
    return {0,h[1],tonumber(h[2]),tonumber(h[3]),math.max(0,tonumber(h[4])-now)}
    """

  /// ARGV: the generation it is to be still, state, trips, how long it is open, time to live.
  private static let breakerSetText: StaticString = """
    local t=redis.call('TIME') local now=t[1]*1000000+t[2]
    local h=redis.call('HMGET',KEYS[1],'g','s','t','u')
    local g=h[1] or '0'
    if g~=ARGV[1] then
      if not h[1] then return {5,'0',1,0,0} end
      return {5,g,tonumber(h[2]),tonumber(h[3]),math.max(0,tonumber(h[4])-now)}
    end
    g=string.format('%.0f',tonumber(g)+1)
    redis.call('HDEL',KEYS[1],'o','p')
    redis.call('HSET',KEYS[1],'g',g,'s',ARGV[2],'t',ARGV[3],'u',string.format('%.0f',now+ARGV[4]))
    redis.call('PEXPIRE',KEYS[1],string.format('%.0f',math.ceil(ARGV[5]/1000)))
    return {0,g,tonumber(ARGV[2]),tonumber(ARGV[3]),tonumber(ARGV[4])}
    """

  /// ARGV: the generation, owner, how long the claim is.
  private static let probeText: StaticString = """
    local t=redis.call('TIME') local now=t[1]*1000000+t[2]
    local h=redis.call('HMGET',KEYS[1],'g','s','u','o','p')
    if h[1]~=ARGV[1] or h[2]=='1' then return {5} end
    if h[2]=='2' and now<tonumber(h[3]) then return {2,tonumber(h[3])-now} end
    if h[4] and h[4]~=ARGV[2] and now<tonumber(h[5]) then return {2,tonumber(h[5])-now} end
    redis.call('HSET',KEYS[1],'o',ARGV[2],'p',string.format('%.0f',now+ARGV[3]))
    return {0}
    """
}

/// The names that the server gives to the scripts: their SHA-1, in hexadecimal.
struct ScriptNames {
  static let bytes = Script.count &* 40

  private let digits: UnsafeMutablePointer<UInt8>

  /// In memory of so many bytes; `nil` when OpenSSL has none for its own.
  init?(_ memory: UnsafeMutableRawPointer) {
    digits = memory.bindMemory(to: UInt8.self, capacity: ScriptNames.bytes)
    let hexadecimal: StaticString = "0123456789abcdef"
    for number in 0..<Script.count {
      guard let script = Script(rawValue: number) else { continue }
      var hash = InlineArray<20, UInt8>(repeating: 0)
      let isHashed = withUnsafeMutableBytes(of: &hash) { raw in
        SHA1(
          script.text.utf8Start, script.text.utf8CodeUnitCount,
          raw.baseAddress?.assumingMemoryBound(to: UInt8.self)) != nil
      }
      guard isHashed else { return nil }
      for index in 0..<20 {
        digits[number &* 40 &+ index &* 2] = hexadecimal.utf8Start[Int(hash[index] &>> 4)]
        digits[number &* 40 &+ index &* 2 &+ 1] = hexadecimal.utf8Start[Int(hash[index] & 15)]
      }
    }
  }

  func name(_ script: Script) -> UnsafePointer<UInt8> {
    UnsafePointer(digits + script.rawValue &* 40)
  }
}
